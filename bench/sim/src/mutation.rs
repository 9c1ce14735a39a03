//! Ways to break the rules, around the very machine of production: what the invariants are worth.

use std::fmt;
use std::str::FromStr;

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// One broken rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What is broken.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

mutations! {
    /// A preempting Backup lets lower-priority adverts hold it.
    RearmOnLower = "rearm-on-lower",
    /// Timers are acted on before the queues are read.
    TimerBeforeQueue = "timer-before-queue",
    /// A lease lasts one interval longer.
    LongerLease = "longer-lease",
    /// A refused advert renews the lease.
    RenewThoughRefused = "renew-though-refused",
    /// The lease counts from the send instead of the decision.
    LeaseFromSend = "lease-from-send",
    /// One router breaks ties the other way round.
    ReversedTie = "reversed-tie",
    /// Priority 0 is not heard.
    DeafToLeaving = "deaf-to-leaving",
    /// A leaving owner goes on answering although its priority 0 was refused.
    HoldThoughRefused = "hold-though-refused",
    /// A Backup waits two intervals and a skew.
    Impatient = "impatient",
    /// A router that gives way goes on answering.
    KeepAnswering = "keep-answering",
    /// Who yields after a split does not speak once more.
    SilentYield = "silent-yield",
    /// Every lower advert is answered at once.
    UnboundedReplies = "unbounded-replies",
    /// A question is heard as the advert of an owner.
    HeedQuestions = "heed-questions",
    /// Who gives the VIPs back falls silent at once.
    GiveBackAtOnce = "give-back-at-once",
    /// Announcements go out without a look at the word.
    AnnounceBlindly = "announce-blindly",
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.iter().map(|mutation| mutation.name()).collect::<Vec<_>>().join(", ");
        let known = Self::ALL.iter().find(|mutation| mutation.name() == name);
        known.copied().ok_or_else(|| format!("no mutation is called {name:?}; there are {}", names()))
    }
}

//! Which of all agents allocates: the holder of a Lease. Where two believe to be it, nothing worse than a refused write comes of it (see `allocate`).

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::{Instant, sleep};

use crate::trouble::Troubles;

/// The Lease's name, in the namespace of the agents.
pub(super) const NAME: &str = "viplane-allocator";
/// Without a sign of its holder for this long, another takes it.
const DURATION: Duration = Duration::from_secs(15);
/// Between signs, and between looks of the others.
const PERIOD: Duration = Duration::from_secs(5);
/// What it is called where it is in trouble.
const PART: &str = "lease";

/// Where the Lease is, and as whom it is held.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) namespace: String,
    pub(super) identity: String,
}

/// Takes part in the election while `wanted`. `leads`: until when this is the leader.
pub(super) async fn run(
    client: Client,
    candidate: Candidate,
    mut wanted: Receiver<bool>,
    leads: Sender<Option<Instant>>,
    troubles: Troubles,
) {
    let leases = Api::<Lease>::namespaced(client, &candidate.namespace);
    let mut seen = Seen::default();
    loop {
        if !*wanted.borrow_and_update() {
            leads.send_replace(None);
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        let asked = Instant::now();
        let outcome = attempt(&leases, &candidate.identity, &mut seen).await;
        match &outcome {
            // Others count from what they see, which was later.
            Ok(true) => drop(leads.send_replace(Some(asked + DURATION - PERIOD))),
            Ok(false) => drop(leads.send_replace(None)),
            // It may be able to say so again before it is too late.
            Err(_) => {}
        }
        let refused = outcome.err().map(|error| {
            format!("Lease {}/{NAME}, by which is decided who allocates: {error}", candidate.namespace)
        });
        troubles.set(PART, refused);
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(PERIOD) => {}
        }
    }
}

/// What was last seen of another holder, and when it was new. Clocks of others do not count.
#[derive(Debug, Default)]
struct Seen {
    version: Option<String>,
    since: Option<Instant>,
}

/// What is to be done about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is ours: say so again.
    Renew,
    /// It is nobody's, or its holder is gone.
    Take,
    /// Its holder may live.
    Wait,
}

impl Seen {
    fn judge(&mut self, lease: &Lease, identity: &str, now: Instant) -> Step {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder == identity {
            return Step::Renew;
        }
        if holder.is_empty() {
            return Step::Take;
        }
        let version = &lease.metadata.resource_version;
        let since = match self.since {
            Some(since) if self.version == *version => since,
            _ => {
                (self.version, self.since) = (version.clone(), Some(now));
                now
            }
        };
        if now >= since + DURATION { Step::Take } else { Step::Wait }
    }
}

/// Whether it is ours now.
async fn attempt(leases: &Api<Lease>, identity: &str, seen: &mut Seen) -> Result<bool, kube::Error> {
    let parameters = PostParams::default();
    let written = match leases.get_opt(NAME).await? {
        None => {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec(identity, None)) };
            leases.create(&parameters, &lease).await
        }
        Some(lease) => match seen.judge(&lease, identity, Instant::now()) {
            Step::Wait => return Ok(false),
            Step::Renew | Step::Take => {
                let spec = spec(identity, lease.spec.as_ref());
                // It names the version that was read: of two that take it, one is refused.
                leases.replace(NAME, &parameters, &Lease { spec: Some(spec), ..lease }).await
            }
        },
    };
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn spec(identity: &str, former: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let same = former.filter(|former| former.holder_identity.as_deref() == Some(identity));
    let transitions = former.and_then(|former| former.lease_transitions).unwrap_or(0);
    LeaseSpec {
        acquire_time: same.map_or_else(|| Some(now.clone()), |former| former.acquire_time.clone()),
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        lease_transitions: Some(if same.is_some() || former.is_none() {
            transitions
        } else {
            transitions + 1
        }),
        renew_time: Some(now),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec(holder, None)) }
    }

    #[test]
    fn a_lease_is_taken_when_its_holder_gave_no_sign_for_its_duration() {
        let (mut seen, begin) = (Seen::default(), Instant::now());
        assert_eq!(seen.judge(&lease("a", "1"), "b", begin), Step::Wait);
        assert_eq!(seen.judge(&lease("a", "1"), "b", begin + DURATION - PERIOD), Step::Wait);
        // A sign of life.
        assert_eq!(seen.judge(&lease("a", "2"), "b", begin + DURATION), Step::Wait);
        assert_eq!(seen.judge(&lease("a", "2"), "b", begin + 2 * DURATION), Step::Take);
    }

    #[test]
    fn who_holds_it_renews_it_and_what_is_nobodys_is_taken_at_once() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        assert_eq!(seen.judge(&lease("b", "1"), "b", now), Step::Renew);
        assert_eq!(seen.judge(&lease("", "1"), "b", now), Step::Take);
    }

    #[test]
    fn a_holder_counts_how_often_it_changed() {
        let first = spec("a", None);
        assert_eq!(spec("a", Some(&first)).lease_transitions, Some(0));
        assert_eq!(spec("a", Some(&first)).acquire_time, first.acquire_time);
        assert_eq!(spec("b", Some(&first)).lease_transitions, Some(1));
    }
}

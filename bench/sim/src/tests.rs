//! The families by the thousand, and what the invariants are worth: each broken rule is caught.

use crate::{FAMILIES, Failure, Family, Invariant, Mutation, play, trace};

/// Seeds of each family: 2000, and with VIPLANE_FULL=1 so many that all of them make 200 000.
fn seeds() -> u64 {
    if std::env::var_os("VIPLANE_FULL").is_some() { 25_000 } else { 2000 }
}

fn holds(family: &str) {
    let family = Family::named(family).unwrap();
    for seed in 0..seeds() {
        if let Err(failure) = play(family, seed, None) {
            let failure = failure.shrunk();
            panic!("{}\n{}\nagain: {}", failure.trace().join("\n"), failure.violation, failure.command());
        }
    }
}

#[test]
fn nothing_breaks_while_no_advert_is_lost() {
    holds("faithful");
}

#[test]
fn nothing_breaks_while_adverts_are_lost_and_links_are_cut() {
    holds("lossy");
}

#[test]
fn one_owner_comes_out_of_any_chaos() {
    holds("chaos");
}

#[test]
fn a_flood_makes_no_storm_and_no_second_owner() {
    holds("flood");
}

#[test]
fn owners_overlap_for_at_most_as_many_intervals_as_adverts_were_lost() {
    holds("crash");
}

#[test]
fn a_planned_move_leaves_no_instant_without_an_owner() {
    holds("handover");
}

#[test]
fn unwell_owners_hand_over_and_the_last_of_them_stays() {
    holds("unwell");
}

#[test]
fn after_a_split_one_owner_is_left_who_announces() {
    holds("split");
}

#[test]
fn priorities_and_preemption_are_honoured() {
    holds("order");
}

/// The first failure within so many seeds of a family, in order.
fn caught(mutation: Mutation, family: &str, within: u64) -> Box<Failure> {
    let family = Family::named(family).unwrap();
    (0..within)
        .find_map(|seed| play(family, seed, Some(mutation)).err())
        .unwrap_or_else(|| panic!("{mutation} is not caught by {within} seeds of {}", family.name))
}

macro_rules! mutations_caught {
    ($($name:ident: $mutation:ident in $family:literal by $invariant:ident within $seeds:literal;)+) => {
        $(
            #[test]
            fn $name() {
                let failure = caught(Mutation::$mutation, $family, $seeds);
                assert_eq!(failure.violation.invariant, Invariant::$invariant, "{}", failure.violation);
            }
        )+

        #[test]
        fn every_mutation_is_among_those_caught() {
            let tested = [$(Mutation::$mutation),+];
            assert!(Mutation::ALL.iter().all(|mutation| tested.contains(mutation)));
        }
    };
}

mutations_caught! {
    a_backup_that_lower_adverts_hold_is_caught: RearmOnLower in "order" by Order within 50;
    timers_before_queues_are_caught: TimerBeforeQueue in "faithful" by Overlap within 50;
    a_lease_one_interval_longer_is_caught: LongerLease in "crash" by Overlap within 20;
    a_lease_renewed_though_the_send_failed_is_caught: RenewThoughRefused in "faithful" by Overlap within 50;
    a_lease_that_counts_from_the_send_is_caught: LeaseFromSend in "faithful" by Overlap within 500;
    a_router_that_breaks_ties_the_other_way_is_caught: ReversedTie in "split" by Overlap within 100;
    a_router_deaf_to_priority_0_is_caught: DeafToLeaving in "handover" by Handover within 50;
    a_leaving_owner_that_nobody_was_told_of_is_caught: HoldThoughRefused in "faithful" by Overlap within 300;
    a_backup_that_waits_too_short_is_caught: Impatient in "crash" by Overlap within 50;
    a_loser_that_goes_on_answering_is_caught: KeepAnswering in "split" by Overlap within 20;
    a_loser_that_yields_in_silence_is_caught: SilentYield in "split" by Announcement within 50;
    questions_heard_as_adverts_of_an_owner_are_caught: HeedQuestions in "crash" by Presence within 50;
    silence_before_the_former_owner_has_the_vips_back_is_caught: GiveBackAtOnce in "split" by Handover within 200;
    replies_without_a_limit_are_caught: UnboundedReplies in "flood" by Storm within 20;
    announcements_without_a_look_at_the_word_are_caught: AnnounceBlindly in "chaos" by Announcement within 100;
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for family in &FAMILIES {
        let (one, other) = (trace(family, 7, None), trace(family, 7, None));
        assert!(one.len() > 50, "{}: {} lines", family.name, one.len());
        assert_eq!(one, other);
    }
}

#[test]
fn a_shrunk_failure_breaks_the_same_invariant_with_less() {
    let failure = caught(Mutation::RenewThoughRefused, "faithful", 100);
    let whole = failure.trace().len();
    let shrunk = failure.clone().shrunk();
    assert_eq!(shrunk.violation.invariant, failure.violation.invariant);
    assert!(shrunk.trace().len() < whole / 2, "{} of {whole} lines are left", shrunk.trace().len());
}

//! keepalived 2.2.7 in version 2. Its shortest interval is 1 s, so scenes are played at once where the clock is not watched
//! to the millisecond.

use vip_lab::wait;

use super::*;

/// The shortest there is.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

const PASSWORD: Version = Version::Two(Some("secret12"));

/// Two by default, the others in the long suite.
const SPEECHES: [Speech; 4] = [
    Speech { vips: &["10.0.0.50"], unicast: false, version: PASSWORD, virtual_mac: false },
    Speech { vips: &["10.0.0.50"], unicast: true, version: Version::Two(None), virtual_mac: false },
    Speech { vips: &["10.0.0.50"], unicast: false, version: Version::Two(None), virtual_mac: false },
    Speech { vips: &["10.0.0.50"], unicast: true, version: PASSWORD, virtual_mac: false },
];

/// Plays each case in each speech, all at once, each in a lab of its own.
fn at_once<C: fmt::Debug + Copy + Send>(
    cases: &[C],
    play: impl Fn(Scene, C) -> Result<()> + Sync,
) -> Result<()> {
    let play = &play;
    let each = |speech: Speech, case: C| move || play(Scene::new(speech)?, case);
    std::thread::scope(|scope| {
        let mut plays = Vec::new();
        for &speech in &SPEECHES[..times(2, SPEECHES.len())] {
            for &case in cases {
                plays.push((speech, case, scope.spawn(each(speech, case))));
            }
        }
        plays.into_iter().try_for_each(|(speech, case, played)| {
            played.join().expect("a play that panics").with_context(|| format!("{speech}, {case:?}"))
        })
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Owner {
    We,
    Keepalived,
}

impl Owner {
    const BOTH: [Self; 2] = [Self::We, Self::Keepalived];
}

/// How the two come to be owner and Backup.
#[derive(Clone, Copy, Debug)]
enum Meeting {
    WeWereFirst,
    KeepalivedWasFirst,
    KeepalivedDoesNotPreempt,
    WeDoNotPreempt,
    OurAddressIsGreater,
    KeepalivedsAddressIsGreater,
}

/// Two by default, the others in the long suite.
const MEETINGS: [Meeting; 6] = [
    Meeting::WeWereFirst,
    Meeting::KeepalivedWasFirst,
    Meeting::KeepalivedDoesNotPreempt,
    Meeting::WeDoNotPreempt,
    Meeting::OurAddressIsGreater,
    Meeting::KeepalivedsAddressIsGreater,
];

#[test]
fn in_version_2_one_owns_and_the_other_is_a_silent_backup_without_a_complaint() -> Result<()> {
    at_once(&MEETINGS[..times(2, MEETINGS.len())], |scene, meeting| match meeting {
        Meeting::WeWereFirst => we_own(&scene, scene.ours(200), scene.theirs(100)),
        Meeting::KeepalivedDoesNotPreempt => we_own(&scene, scene.ours(100), scene.theirs(200).nopreempt()),
        Meeting::KeepalivedWasFirst => they_own(&scene, scene.ours(100), scene.theirs(200)),
        Meeting::WeDoNotPreempt => they_own(&scene, scene.ours(200).preempt(false), scene.theirs(100)),
        Meeting::OurAddressIsGreater => {
            let scene = scene.swapped();
            let (ours, theirs) = split_and_healed(&scene)?;
            theirs.wait_state("BACKUP", SOON)?;
            scene.peace(scene.our_node(), &ours, &theirs)
        }
        Meeting::KeepalivedsAddressIsGreater => {
            let (ours, theirs) = split_and_healed(&scene)?;
            ours.wait_state("backup", SOON)?;
            scene.peace(scene.their_node(), &ours, &theirs)
        }
    })
}

fn we_own(scene: &Scene, ours: AgentBuilder, theirs: KeepalivedBuilder) -> Result<()> {
    let ours = ours.start()?;
    ours.wait_state("active", SOON)?;
    let theirs = theirs.start()?;
    theirs.wait_state("BACKUP", SOON)?;
    scene.peace(scene.our_node(), &ours, &theirs)
}

fn they_own(scene: &Scene, ours: AgentBuilder, theirs: KeepalivedBuilder) -> Result<()> {
    let theirs = theirs.start()?;
    theirs.wait_state("MASTER", SOON)?;
    let ours = ours.start()?;
    ours.wait_state("backup", SOON)?;
    scene.peace(scene.their_node(), &ours, &theirs)
}

#[test]
fn in_version_2_each_takes_over_in_time_when_the_other_crashes_or_is_terminated() -> Result<()> {
    let cases = Owner::BOTH.map(|owner| [End::Crash, End::Terminate].map(|end| (owner, end)));
    at_once(&cases.concat(), |scene, (owner, end)| ends_in_time(&scene, INTERVAL, owner == Owner::We, end))
}

#[test]
fn in_version_2_the_higher_priority_that_comes_second_preempts() -> Result<()> {
    at_once(&Owner::BOTH, |scene, second| {
        let (ours, theirs);
        match second {
            Owner::We => {
                theirs = scene.theirs(100).start()?;
                theirs.wait_state("MASTER", SOON)?;
                ours = scene.ours(200).start()?;
                ours.wait_state("active", SOON)?;
                theirs.wait_state("BACKUP", SOON)?;
            }
            Owner::Keepalived => {
                ours = scene.ours(100).start()?;
                ours.wait_state("active", SOON)?;
                theirs = scene.theirs(200).start()?;
                theirs.wait_state("MASTER", SOON)?;
                ours.wait_state("backup", SOON)?;
            }
        }
        ensure!(theirs.complaints().is_empty(), "{:#?}", theirs.complaints());
        ensure!(ours.edge_json()?["adverts"]["discarded"] == 0, "{}", ours.edge_json()?);
        Ok(())
    })
}

/// What a keepalived beside us is configured otherwise.
#[derive(Clone, Copy, Debug)]
enum Odd {
    Password,
    NoPassword,
    Interval,
    Version,
}

#[test]
fn a_keepalived_that_is_configured_otherwise_is_not_heard_and_raises_an_alarm() -> Result<()> {
    let play = |odd: Odd| -> Result<()> {
        let mut scene = Scene::new(SPEECHES[0])?;
        let ours = scene.ours(200).start()?;
        ours.wait_state("active", SOON)?;
        let transitions = ours.edge()?.transitions;
        let (version, kind) = match odd {
            Odd::Password => (Version::Two(Some("other123")), "wrong_password"),
            Odd::NoPassword => (Version::Two(None), "auth_type_mismatch"),
            Odd::Interval => (PASSWORD, "interval_mismatch"),
            Odd::Version => (Version::Three, "version_mismatch"),
        };
        scene.speech.version = version;
        let theirs = scene.theirs(201);
        let theirs = if matches!(odd, Odd::Interval) { theirs.interval(INTERVAL * 2) } else { theirs };
        // Nor does it hear us: whoever mixes them has two owners, and should hear of it.
        let theirs = theirs.start()?;
        theirs.wait_state("MASTER", SOON)?;
        alarmed(&ours, kind, "10.0.0.2", scene.their_node().mac())?;
        wait::until(SOON, || !theirs.complaints().is_empty())
            .with_context(|| format!("it does not mind us: {}", theirs.log()))?;
        ensure!(ours.edge()?.transitions == transitions, "{}", ours.log());
        Ok(())
    };
    std::thread::scope(|scope| {
        let plays = [Odd::Password, Odd::NoPassword, Odd::Interval, Odd::Version]
            .map(|odd| scope.spawn(move || play(odd).with_context(|| format!("{odd:?}"))));
        plays.into_iter().try_for_each(|played| played.join().expect("a play that panics"))
    })
}

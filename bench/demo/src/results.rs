//! From a plan to results: builds the lab, has the story played, writes and prints what came of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use vip_lab::Lab;

use crate::cast::Member;
use crate::evidence::Evidence;
use crate::options::Plan;
use crate::record::{Run, Told};
use crate::screen::Screen;
use crate::stage::Stage;
use crate::{story, table, timeline};

/// For the daemons to agree who owns, beyond the protocol's own timers.
const START: Duration = Duration::from_secs(15);

/// Plays, writes and prints; true if everything was as it has to be.
///
/// # Errors
/// The lab cannot be built, an agent does not start, or results cannot be written.
pub(crate) fn play(plan: &Plan) -> Result<bool> {
    let folder = Folder::prepare(&plan.out)?;
    let mut screen = Screen::new(plan.plain);
    let played = perform(plan, &folder, &mut screen);
    screen.finish();
    let (told, evidence) = played
        .inspect_err(|_| folder.give_back())
        .with_context(|| format!("logs: {}", folder.logs().display()))?;

    let run = Run::new(plan, told, &evidence);
    folder.write("demo.json", &serde_json::to_string_pretty(&run).context("write the run as JSON")?)?;
    folder.write("timeline.svg", &timeline::render(&run, &evidence))?;
    folder.give_back();
    screen.say(&format!("\n{}\n{}", table::render(&run), verdict(&run, &folder)))?;
    Ok(run.ok)
}

fn perform(plan: &Plan, folder: &Folder, screen: &mut Screen) -> Result<(Told, Evidence)> {
    let seconds = plan.expected_duration().as_secs_f64();
    screen.note(&format!(
        "{} nodes, adverts every {}, {} VIPs, a request every {}; about {seconds:.0} s",
        plan.nodes,
        humantime::format_duration(plan.advert),
        plan.vips.len(),
        humantime::format_duration(plan.every),
    ))?;
    let vips: Vec<String> = plan.vips.iter().map(ToString::to_string).collect();
    let lab = Lab::builder().nodes(plan.nodes).vips(vips).web().logs(folder.logs()).build()?;
    let mut cast: Vec<Member> =
        (1..=lab.nodes().len()).map(|number| Member::start(&lab, plan, number)).collect::<Result<_>>()?;
    let patience = START + plan.active_down(1) * 2;
    cast[0].wait_active(patience)?;
    for standby in &cast[1..] {
        standby.wait_backup(patience)?;
    }
    let mut stage = Stage::open(plan, &lab, screen)?;
    let mut told = story::tell(&mut stage, &mut cast)?;
    let (evidence, missed) = stage.close()?;
    told.failures.extend(missed);
    Ok((told, evidence))
}

fn verdict(run: &Run, folder: &Folder) -> String {
    let mut text = if run.ok {
        let (requests, lost, jitter) = (run.client.requests, run.client.lost, run.client.jitter_ms);
        format!(
            "ok: {} moves, never two owners where nobody handed over; {lost} of {requests} requests lost; quiet gaps up to {jitter:.1} ms\n",
            run.events.len()
        )
    } else {
        run.failures.iter().map(|failure| format!("FAILED: {failure}\n")).collect()
    };
    let path = |name: &str| folder.path.join(name).display().to_string();
    text.push_str(&format!("picture: {}   data: {}", path("timeline.svg"), path("demo.json")));
    if !run.ok {
        text.push_str(&format!("   logs: {}", folder.logs().display()));
    }
    text
}

/// Where results go. Written by root, they belong to whoever owns the place.
struct Folder {
    path: PathBuf,
    owner: (u32, u32),
}

impl Folder {
    fn prepare(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
        let place = path.ancestors().find_map(|folder| fs::metadata(folder).ok());
        let owner = place.map_or((0, 0), |place| (place.uid(), place.gid()));
        let folder = Self { path, owner };
        // Logs are appended to: those of an earlier run would be read as this one's.
        let logs = folder.logs();
        if logs.exists() {
            fs::remove_dir_all(&logs).with_context(|| format!("remove {}", logs.display()))?;
        }
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        Ok(folder)
    }

    fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Best effort: who cannot be given them can still read them.
    fn give_back(&self) {
        let (user, group) = self.owner;
        for folder in [self.path.clone(), self.logs()] {
            let _ = chown(&folder, Some(user), Some(group));
            for file in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let _ = chown(file.path(), Some(user), Some(group));
            }
        }
    }
}

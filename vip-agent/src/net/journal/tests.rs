//! What the journal holds after crashes at bad moments, reboots and damage.

use tempfile::TempDir;

use super::super::sysctl::{Setting, Sysctl};
use super::*;

const BOOT: &str = "this boot";
const HERE: Option<u64> = Some(1);

fn directory() -> TempDir {
    TempDir::new().unwrap()
}

fn open(state: &TempDir) -> Journal {
    Journal::open_as(state.path(), BOOT.into(), HERE).unwrap()
}

fn saved(interface: &str) -> SavedSysctl {
    SavedSysctl { sysctl: Sysctl::new(interface, Setting::ArpIgnore), previous: 0, ours: 3 }
}

fn address() -> IpAddr {
    "10.0.0.50".parse().unwrap()
}

/// A directory with one entry of each kind.
fn written() -> TempDir {
    let state = directory();
    let journal = open(&state);
    journal.record_sysctl(saved("eth0")).unwrap();
    journal.record_addresses([address()]).unwrap();
    journal.record_pin_dir("/sys/fs/bpf/viplane".into()).unwrap();
    state
}

#[test]
fn what_is_recorded_is_there_for_the_next_agent() {
    let entries = open(&written()).entries();
    assert_eq!(entries.sysctls, [saved("eth0")]);
    assert_eq!(entries.addresses, BTreeSet::from([address()]));
    assert_eq!(entries.pin_dirs, BTreeSet::from(["/sys/fs/bpf/viplane".into()]));
}

#[test]
fn an_empty_journal_leaves_no_file() {
    let state = written();
    let journal = open(&state);
    journal.forget_sysctl(&saved("eth0")).unwrap();
    journal.forget_addresses(&BTreeSet::from([address()])).unwrap();
    assert!(state.path().join(FILE).exists());
    journal.forget_pin_dir(Path::new("/sys/fs/bpf/viplane")).unwrap();
    assert!(!state.path().join(FILE).exists());
    assert!(open(&state).is_empty());
}

#[test]
fn the_first_recorded_value_of_a_sysctl_stays() {
    let state = written();
    let second = SavedSysctl { previous: 3, ..saved("eth0") };
    open(&state).record_sysctl(second).unwrap();
    assert_eq!(open(&state).entries().sysctls, [saved("eth0")]);
}

#[test]
fn a_crash_while_the_next_page_is_written_leaves_the_old_one() {
    let state = written();
    let before = open(&state).entries();
    fs::write(state.path().join("journal.json.new"), b"{\"version\": 1, \"boo").unwrap();
    let journal = open(&state);
    assert_eq!(journal.entries(), before);
    journal.record_addresses(["fd00::50".parse().unwrap()]).unwrap();
    assert_eq!(open(&state).entries().addresses.len(), 2);
}

#[test]
fn every_kind_of_damage_is_refused_with_the_remedy_and_the_file_stays_as_it_is() {
    let whole = fs::read(written().path().join(FILE)).unwrap();
    let flipped = String::from_utf8(whole.clone()).unwrap().replace("arp_ignore", "arp_ignorf").into_bytes();
    let damages =
        [whole[..whole.len() / 2].to_vec(), Vec::new(), vec![0; whole.len()], b"[]".to_vec(), flipped];
    for damage in damages {
        let state = directory();
        let path = state.path().join(FILE);
        fs::write(&path, &damage).unwrap();
        let error = Journal::open_as(state.path(), BOOT.into(), HERE).unwrap_err();
        assert!(matches!(error, JournalError::Corrupt { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("{} is corrupt", path.display())), "{error}");
        assert!(error.to_string().contains("then remove the file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damage);
    }
}

#[test]
fn a_newer_agents_journal_is_refused() {
    let state = directory();
    fs::write(state.path().join(FILE), br#"{"version": 2, "anything": []}"#).unwrap();
    let error = Journal::open_as(state.path(), BOOT.into(), HERE).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 2, .. }), "{error}");
}

#[test]
fn a_reboot_leaves_nothing_to_undo() {
    let state = written();
    assert!(Journal::open_as(state.path(), "another boot".into(), HERE).unwrap().is_empty());
}

#[test]
fn in_another_network_namespace_only_pins_are_in_reach() {
    let state = written();
    let entries = Journal::open_as(state.path(), BOOT.into(), Some(2)).unwrap().entries();
    assert!(entries.sysctls.is_empty() && entries.addresses.is_empty());
    assert_eq!(entries.pin_dirs.len(), 1);
}

#[test]
fn a_kernel_without_namespace_numbers_undoes_everything() {
    let state = directory();
    let journal = Journal::open_as(state.path(), BOOT.into(), None).unwrap();
    journal.record_addresses([address()]).unwrap();
    assert_eq!(Journal::open_as(state.path(), BOOT.into(), None).unwrap().entries().addresses.len(), 1);
}

#[test]
fn what_does_not_reach_the_disk_is_not_taken_for_recorded() {
    let state = written();
    let journal = open(&state);
    let before = journal.entries();
    fs::create_dir(state.path().join("journal.json.new")).unwrap();
    let error = journal.record_sysctl(saved("eth1")).unwrap_err();
    assert!(error.to_string().contains("state_dir must be a writable directory"), "{error}");
    assert_eq!(journal.entries(), before);
    assert_eq!(open(&state).entries(), before);
}

#[test]
fn the_state_directory_is_made_with_the_first_entry() {
    let state = directory();
    let deep = state.path().join("var/lib/viplane");
    let journal = Journal::open(&deep).unwrap();
    assert!(journal.is_empty() && !deep.exists());
    journal.record_sysctl(saved("eth0")).unwrap();
    assert_eq!(Journal::open(&deep).unwrap().entries().sysctls, [saved("eth0")]);
}

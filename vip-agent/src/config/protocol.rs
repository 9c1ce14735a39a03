//! The schema of an instance's `version`, and of the keys that depend on it: `advert_interval`, `checksum`, `auth`.

use std::path::Path;

use super::VipAddress;
use super::duration::Span;
use super::field::{Field, Mapping};
use super::model::{Auth, Protocol};
use super::secrets::Secrets;
use super::tree::Value;
use crate::types::{Centiseconds, ChecksumMode, Seconds, Version};
use crate::vrrp::auth::Password;

/// `vips` are the valid ones, each with its field.
pub(super) fn protocol(
    mapping: &Mapping<'_>,
    vips: &[(Field<'_>, VipAddress)],
    secrets: &Secrets<'_>,
) -> Option<Protocol> {
    match mapping.or("version", Version::V3, version)? {
        Version::V2 => version_2(mapping, vips, secrets),
        Version::V3 => version_3(mapping),
    }
}

fn version(field: &Field<'_>) -> Option<Version> {
    match field.node.value {
        Value::Integer(2) => Some(Version::V2),
        Value::Integer(3) => Some(Version::V3),
        _ => field.refuse(format_args!("must be 2 or 3, not {}", field.node.value)),
    }
}

fn version_3(mapping: &Mapping<'_>) -> Option<Protocol> {
    let advert_interval = mapping.or("advert_interval", Centiseconds::SECOND, |field| {
        let duration = field.duration()?;
        Centiseconds::try_from(duration).ok().or_else(|| {
            field.refuse(format_args!("must be 10ms to 40.95s in steps of 10ms, not {}", Span(duration)))
        })
    });
    let checksum = mapping.or("checksum", ChecksumMode::default(), checksum);
    let no_auth = mapping.or("auth", (), |field| match field.is_null() {
        true => Some(()),
        false => field.refuse("needs `version: 2`: version 3 has no passwords"),
    });
    no_auth?;
    Some(Protocol::V3 { advert_interval: advert_interval?, checksum: checksum? })
}

fn version_2(
    mapping: &Mapping<'_>,
    vips: &[(Field<'_>, VipAddress)],
    secrets: &Secrets<'_>,
) -> Option<Protocol> {
    let advert_interval = mapping.or("advert_interval", Seconds::ONE, |field| {
        let duration = field.duration()?;
        Seconds::try_from(duration).ok().or_else(|| {
            let found = Span(duration);
            field.refuse(format_args!("must be 1s to 255s in whole seconds with `version: 2`, not {found}"))
        })
    });
    let auth = mapping.or("auth", None, |field| match field.is_null() {
        true => Some(None),
        false => auth(field, secrets).map(Some),
    });
    let mut valid = true;
    for (field, vip) in vips.iter().filter(|(_, vip)| vip.address.is_ipv6()) {
        let address = vip.address;
        field.error(format_args!(
            "{address}: `version: 2` carries IPv4 alone; put it into an instance of version 3"
        ));
        valid = false;
    }
    if let Some(field) = mapping.get("checksum") {
        valid &= only_checksum(&field).is_some();
    }
    let (advert_interval, auth) = (advert_interval?, auth?);
    valid.then_some(Protocol::V2 { advert_interval, auth })
}

fn checksum(field: &Field<'_>) -> Option<ChecksumMode> {
    field.choice(&[
        ("pseudo", ChecksumMode::Pseudo),
        ("rfc9568", ChecksumMode::Rfc9568),
        ("old_unicast", ChecksumMode::OldUnicast),
    ])
}

/// Version 2 leaves no choice. The default of version 3 may stand in files that write everything down.
fn only_checksum(field: &Field<'_>) -> Option<()> {
    if checksum(field)? == ChecksumMode::default() {
        field.warn("has no effect: adverts of version 2 have one kind of checksum");
        return Some(());
    }
    field.refuse("does not go with `version: 2`, whose adverts have one kind of checksum: leave it out")
}

/// Errors here never repeat what was written: it may be a password in the wrong place.
fn auth(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<Auth> {
    const WAYS: &str = "must be null or exactly one of `{password: \"1-8 bytes\"}`, `{password_file: FILE}`";
    if !matches!(field.node.value, Value::Mapping(_)) {
        return field.refuse(WAYS);
    }
    let auth = field.mapping(&["password", "password_file"])?;
    match (auth.get("password"), auth.get("password_file")) {
        (Some(field), None) => password(&field, secrets).map(Auth::Password),
        (None, Some(field)) => password_file(&field, secrets),
        _ => field.refuse(WAYS),
    }
}

fn password(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<Password> {
    let Value::Text(text) = &field.node.value else {
        return field.refuse("must be a text of 1-8 bytes: put it in quotes");
    };
    if let Some(mode) = secrets.shared_mode {
        field.warn(format_args!(
            "stands in a file that others may read (mode {mode:04o}): `chmod 600` it, or use `password_file`"
        ));
    }
    field.accept(Password::new(text))
}

fn password_file(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<Auth> {
    let path = match &field.node.value {
        Value::Text(text) if text.starts_with('/') && !text.contains('\0') => Path::new(text),
        _ => return field.refuse("must be the absolute path of a file"),
    };
    match (secrets.password_file)(path) {
        Ok(password) => Some(Auth::PasswordFile { path: path.to_owned(), password }),
        Err(error) => field.refuse(format_args!("{} {error}", path.display())),
    }
}

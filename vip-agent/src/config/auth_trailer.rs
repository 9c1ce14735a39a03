//! The schema of `auth_trailer`: signed adverts.

use std::path::Path;

use super::field::Field;
use super::model::AuthTrailer;
use super::secrets::Secrets;
use super::tree::Value;

/// Errors here never repeat what was written: it may be a key in the wrong place.
pub(super) fn auth_trailer(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<AuthTrailer> {
    if !matches!(field.node.value, Value::Mapping(_)) {
        return field.refuse("must be null or `{key_file: FILE, accept_unsigned: false}`");
    }
    let mapping = field.mapping(&["key_file", "accept_unsigned"])?;
    let accept_unsigned = mapping.or("accept_unsigned", false, |field| match field.node.value {
        Value::Bool(value) => Some(value),
        _ => field.refuse("must be true or false"),
    });
    if accept_unsigned == Some(true)
        && let Some(field) = mapping.get("accept_unsigned")
    {
        field.warn(
            "is for changing over: until it is false, anybody on the link can take the VIPs as without keys",
        );
    }
    let key_file = mapping.required("key_file")?;
    let path = match &key_file.node.value {
        Value::Text(text) if text.starts_with('/') && !text.contains('\0') => Path::new(text),
        _ => return key_file.refuse("must be the absolute path of a file"),
    };
    match (secrets.key_file)(path) {
        Ok(keys) => Some(AuthTrailer { key_file: path.to_owned(), keys, accept_unsigned: accept_unsigned? }),
        Err(error) => key_file.refuse(format_args!("{} {error}", path.display())),
    }
}

//! The page at `/`: the status for people with a browser. Plain HTML that loads itself again; no script.

use std::fmt::{self, Display, Write as _};

use hyper::{Response, StatusCode};

use super::Shared;
use super::respond::{Body, HTML, line, with};
use crate::status::{Alarm, InstanceStatus, Status};

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta http-equiv=\"refresh\" content=\"5\"><meta name=\"viewport\" content=\"width=device-width\"><title>viplane</title><style>\
body{font:15px/1.4 system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse;margin:1em 0}\
th,td{text-align:left;padding:.3em .9em;border-bottom:1px solid #ddd;vertical-align:top}th{color:#666;font-weight:normal}\
.active{color:#07702b}.fault,.alarm{color:#b00020}.draining,.initialize{color:#8a5a00}small{color:#666}</style></head><body>\n";

/// The page, or why there is nothing to show.
pub(super) async fn page(shared: &Shared) -> Response<Body> {
    match shared.agent.status().await {
        Ok(status) => with(StatusCode::OK, HTML, html(&status)),
        Err(error) => line(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}

fn html(status: &Status) -> String {
    let mut page = String::from(HEAD);
    let Status { node, version, .. } = status;
    // A String takes all that is written to it.
    let _ = writeln!(page, "<h1>{}</h1><p><small>vip-agent {}</small></p>", Html(node), Html(version));
    if let Some(reason) = &status.configuration.reason {
        let _ =
            writeln!(page, "<p class=\"alarm\">The configuration file is not in force: {}</p>", Html(reason));
    }
    page.push_str(
        "<table><tr><th>instance<th>state<th>owner<th>priority<th>VRID<th>interface<th>since<th>VIPs</tr>\n",
    );
    for instance in &status.instances {
        row(&mut page, instance);
    }
    page.push_str("</table>\n");
    for Alarm { kind, instance, address, mac, count, since, .. } in &status.alarms {
        let _ = writeln!(
            page,
            "<p class=\"alarm\">{}: {} {address} by {}, {count} times since {}</p>",
            Html(instance),
            Html(kind),
            Html(mac),
            Html(since)
        );
    }
    page.push_str(
        "<p><small><a href=\"/status\">status</a> · <a href=\"/metrics\">metrics</a> · <a href=\"/events\">events</a> · \
         <a href=\"/healthz\">healthz</a> · <a href=\"/readyz\">readyz</a></small></p></body></html>\n",
    );
    page
}

fn row(page: &mut String, instance: &InstanceStatus) {
    let InstanceStatus { name, state, reason, effective_priority, virtual_router_id, since, .. } = instance;
    let owner = instance.active_router.map_or("-".to_owned(), |owner| owner.to_string());
    let interface = instance.interface.as_deref().unwrap_or("-");
    let mode = instance.xdp_mode.as_deref().unwrap_or("not attached");
    let vips: Vec<String> = instance.vips.iter().map(ToString::to_string).collect();
    let (name, state, since) = (Html(name), Html(state), Html(since));
    let _ = write!(page, "<tr><td>{name}<td class=\"{state}\">{state}");
    if let Some(reason) = reason {
        let _ = write!(page, "<br><small>{}</small>", Html(reason));
    }
    let _ = writeln!(
        page,
        "<td>{owner}<td>{effective_priority}<td>{virtual_router_id}<td>{} <small>({})</small><td>{since}<td>{}</tr>",
        Html(interface),
        Html(mode),
        vips.join(" ")
    );
}

/// A text as HTML shows it: nothing in it is markup.
struct Html<'a>(&'a str);

impl Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_is_markup() {
        let text = Html("<script>\"&'</script>").to_string();
        assert_eq!(text, "&lt;script&gt;&quot;&amp;&#39;&lt;/script&gt;");
    }
}

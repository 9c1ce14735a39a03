//! The conversation with the agent: orders in, reports out, until the agent's end is closed.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch::{self, channel};
use tokio::time::timeout;
use vip_kube_protocol::{LineError, Lines, Order, Remark, Report, View, encode};

use crate::follow::{self, Known, Wish};
use crate::model::{self, Settings};
use crate::telling::Teller;

/// After this much silence the agent is told that nothing hangs.
const ALIVE: Duration = Duration::from_secs(15);

/// Read at once.
const PIECE: usize = 64 << 10;

/// Follows what the agent orders, and reports, until it closes its end.
///
/// # Errors
/// The agent says what is not understood, or hears nothing.
pub async fn converse(orders: Receiver, reports: Sender) -> anyhow::Result<()> {
    let (wish, wishes) = channel(None);
    let (active, actives) = channel(BTreeSet::new());
    let (known, knowledge) = channel(Known::default());
    tokio::select! {
        end = listen(orders, wish, active) => Ok(end?),
        end = speak(reports, knowledge) => Ok(end?),
        () = follow::run(wishes, actives, known) => Ok(()),
    }
}

/// Why the conversation is over.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the agent's orders: {0}")]
    Line(#[from] LineError),
    #[error("the agent's pipe: {0}")]
    Pipe(#[from] io::Error),
}

/// Until the agent closes its end.
async fn listen(
    mut orders: Receiver,
    wish: watch::Sender<Option<Wish>>,
    active: watch::Sender<BTreeSet<String>>,
) -> Result<(), Broken> {
    let (mut lines, mut piece) = (Lines::default(), vec![0; PIECE]);
    loop {
        let count = orders.read(&mut piece).await?;
        if count == 0 {
            return Ok(lines.end()?);
        }
        lines.push(&piece[..count]);
        while let Some(order) = lines.message::<Order>()? {
            active.send_if_modified(|former| replace(former, order.active.clone()));
            let wanted = Wish { revision: order.revision, settings: Settings::of(order) };
            wish.send_if_modified(|former| replace(former, Some(wanted)));
        }
    }
}

/// Whether it differs from what was there.
fn replace<T: PartialEq>(former: &mut T, new: T) -> bool {
    let differs = *former != new;
    *former = new;
    differs
}

/// Says how things are whenever that changes, and now and then that nothing hangs.
async fn speak(mut reports: Sender, mut knowledge: watch::Receiver<Known>) -> Result<(), Broken> {
    let mut teller = Teller::default();
    loop {
        let line = match timeout(ALIVE, knowledge.changed()).await {
            Err(_) => encode(&Report::Alive)?,
            Ok(Err(_)) => return Ok(()),
            Ok(Ok(())) => {
                let known = knowledge.borrow_and_update().clone();
                encode(&Report::View(view(&known, &mut teller)?))?
            }
        };
        reports.write_all(&line).await?;
    }
}

fn view(known: &Known, teller: &mut Teller) -> Result<View, LineError> {
    let Known { revision, desired, troubles } = known;
    let remark = |remark: &model::Remark| Remark {
        object: remark.about.to_string(),
        reason: remark.trouble.to_string(),
        message: remark.message.clone(),
    };
    Ok(View {
        revision: *revision,
        in_sync: desired.is_some(),
        troubles: troubles.clone(),
        objects: desired.iter().flat_map(|desired| &desired.remarks).map(remark).collect(),
        telling: teller.telling(known)?,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncBufReadExt as _;
    use tokio::net::unix::pipe::pipe;
    use vip_kube_protocol::{Kubernetes, Steering, Telling};

    use super::*;

    /// To follow a cluster that nobody says how to reach.
    fn order(revision: u64) -> Order {
        Order {
            revision,
            node: "node1".to_owned(),
            kubernetes: Kubernetes {
                kubeconfig: Some("/nowhere/kubeconfig".into()),
                ..Kubernetes::default()
            },
            taken_ids: BTreeSet::new(),
            taken_vips: BTreeSet::new(),
            steering: Steering::Off,
            active: BTreeSet::new(),
        }
    }

    fn run<T>(conversation: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(conversation)
    }

    #[test]
    fn what_keeps_a_cluster_from_being_followed_is_said_and_the_end_of_orders_is_the_end() {
        run(async {
            let ((mut ours, orders), (reports, heard)) = (pipe().unwrap(), pipe().unwrap());
            let conversation = tokio::spawn(converse(orders, reports));
            ours.write_all(&encode(&order(3)).unwrap()).await.unwrap();
            let mut heard = tokio::io::BufReader::new(heard);
            let view = loop {
                let mut line = String::new();
                heard.read_line(&mut line).await.unwrap();
                match serde_json::from_str(&line).unwrap() {
                    Report::View(view) if !view.troubles.is_empty() => break view,
                    _ => {}
                }
            };
            assert_eq!((view.revision, view.in_sync, &view.telling), (3, false, &Telling::Nothing));
            assert!(view.troubles.first().unwrap().contains("/nowhere/kubeconfig"), "{:?}", view.troubles);
            drop(ours);
            conversation.await.unwrap().unwrap();
        });
    }

    #[test]
    fn what_is_not_understood_or_breaks_off_ends_it_with_an_error() {
        for bytes in ["{\"revision\": 1, \"moons\": 2}\n", "{\"revision\": 1"] {
            let ended = run(async {
                let ((mut ours, orders), (reports, _heard)) = (pipe().unwrap(), pipe().unwrap());
                let conversation = tokio::spawn(converse(orders, reports));
                ours.write_all(bytes.as_bytes()).await.unwrap();
                drop(ours);
                conversation.await.unwrap()
            });
            assert!(ended.unwrap_err().to_string().contains("the agent's orders"), "{bytes}");
        }
    }
}

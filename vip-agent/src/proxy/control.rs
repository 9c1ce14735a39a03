//! Applies what the agent orders: services that come, change and go.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::Shared;
use super::listener::Acceptor;
use super::live::Live;
use super::service::ProxyService;
use super::worker::Workers;

/// Connections of all services at a time.
const MOST_CONNECTIONS: usize = 32_000;

/// What the agent wants.
#[derive(Debug)]
pub(super) enum Order {
    /// These services, and no others. They were checked.
    Serve(Vec<ProxyService>),
    /// An end of all connections to these addresses.
    Cut(Vec<IpAddr>),
}

/// Services, and who listens for them.
struct Control {
    shared: Arc<Shared>,
    workers: Workers,
    places: Arc<Semaphore>,
    /// Whose each address is that is listened on.
    listening: BTreeMap<SocketAddr, watch::Sender<Arc<Live>>>,
    /// Listeners, and the grace times of services that are gone.
    tasks: JoinSet<()>,
    /// Services that are gone, as long as they have connections.
    retired: Vec<Weak<Live>>,
}

/// Follows orders until there can be no more.
pub(super) async fn run(mut orders: mpsc::UnboundedReceiver<Order>, shared: Arc<Shared>, workers: Workers) {
    let mut control = Control {
        shared,
        workers,
        places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        listening: BTreeMap::new(),
        tasks: JoinSet::new(),
        retired: Vec::new(),
    };
    while let Some(order) = orders.recv().await {
        while control.tasks.try_join_next().is_some() {}
        // Of several sets that wait the last one counts: rings take time to build.
        let (mut wanted, mut gone) = (None, Vec::new());
        let waiting = std::iter::from_fn(|| orders.try_recv().ok());
        for order in std::iter::once(order).chain(waiting) {
            match order {
                Order::Serve(services) => wanted = Some(services),
                Order::Cut(vips) => gone.extend(vips),
            }
        }
        control.cut(&gone);
        if let Some(services) = wanted {
            control.serve(services);
        }
        // This thread listens and serves, too.
        tokio::task::yield_now().await;
    }
}

// === impl Control ===

impl Control {
    fn serve(&mut self, services: Vec<ProxyService>) {
        let mut before = self.shared.services().clone();
        let mut now = Vec::with_capacity(services.len());
        let mut wanted = BTreeMap::new();
        for service in services {
            let known = before.iter().position(|live| live.name == service.name && live.vip == service.vip);
            let addresses: Vec<SocketAddr> = service.addresses().collect();
            let name = service.name.clone();
            let live = match known.map(|index| before.swap_remove(index)) {
                Some(live) => live.change(service).map(|()| live),
                None => Live::new(service).map(Arc::new),
            };
            let Ok(live) = live else {
                // More backends than a ring has entries: there is no other reason left.
                tracing::error!(service = name, "`mode: proxy` cannot choose between so many backends");
                continue;
            };
            wanted.extend(addresses.into_iter().map(|address| (address, Arc::clone(&live))));
            now.push(live);
        }
        *self.shared.services() = now;
        self.listen(wanted);
        before.into_iter().for_each(|live| self.retire(live));
    }

    /// Listens on these addresses and no others.
    fn listen(&mut self, wanted: BTreeMap<SocketAddr, Arc<Live>>) {
        self.listening.retain(|address, _| wanted.contains_key(address));
        for (address, live) in wanted {
            if let Some(listening) = self.listening.get(&address) {
                listening.send_if_modified(|current| {
                    let other = !Arc::ptr_eq(current, &live);
                    *current = live;
                    other
                });
                continue;
            }
            let (tell, told) = watch::channel(live);
            self.listening.insert(address, tell);
            let acceptor = Acceptor {
                address,
                live: told,
                workers: self.workers.clone(),
                places: Arc::clone(&self.places),
                shared: Arc::clone(&self.shared),
            };
            self.tasks.spawn(acceptor.run());
        }
    }

    /// Serves the connections of a service that is gone for its grace time.
    fn retire(&mut self, live: Arc<Live>) {
        self.retired.retain(|retired| retired.strong_count() > 0);
        self.retired.push(Arc::downgrade(&live));
        let grace = live.plan().service.grace;
        self.tasks.spawn(async move {
            tokio::time::sleep(grace).await;
            live.cut();
        });
    }

    fn cut(&self, vips: &[IpAddr]) {
        let retired = self.retired.iter().filter_map(Weak::upgrade);
        let services = self.shared.services().clone();
        services
            .into_iter()
            .chain(retired)
            .filter(|live| vips.contains(&live.vip))
            .for_each(|live| live.cut());
    }
}

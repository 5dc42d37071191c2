//! VRRP beside balancing: claims follow the virtual addresses.

use std::time::Instant;

use tokio::sync::oneshot;
use tracing::error;

use super::App;
use crate::claims::{self, Terms};
use crate::control::protocol::{ErrorKind, Reply};
use crate::control::vrrp::VrrpInfo;
use crate::logging::chain;
use crate::notify::Event;
use crate::plan::Plan;
use crate::vrrp::dump::{self, Dump};
use crate::vrrp::{self, Claims, News, Vrrp, VrrpError};

impl App {
    /// What VRRP tells, and all that it has told meanwhile. Of several words about the addresses the last one counts.
    pub(super) async fn hear_vrrp(&mut self, first: News) {
        let mut held = None;
        let mut next = Some(first);
        while let Some(news) = next {
            self.notify_of(&news);
            match news {
                News::Held { number, addresses } => held = Some((number, addresses)),
                News::Session { name, is_up } => {
                    self.pools.handle_session(Instant::now(), &name, is_up);
                }
                _ => {}
            }
            next = self.vrrp_news.try_recv().ok();
        }
        let Some((number, addresses)) = held else {
            return;
        };
        self.held = addresses;
        let wanted = claims::present(&self.scheduler, &self.plan, &self.terms(&self.plan));
        match (self.data_path.set_claims(wanted).await, &self.vrrp) {
            (Ok(()), Some(vrrp)) => vrrp.confirm(number),
            (Ok(()), None) => {}
            (Err(error), _) => error!("{}", chain(&error)),
        }
    }

    fn notify_of(&self, news: &News) {
        vrrp::log(news);
        if let Some(event) = Event::of_vrrp(news) {
            self.notifier.tell(event);
        }
    }

    pub(super) fn dump_vrrp(&self, dump: Dump) {
        if let Some(vrrp) = &self.vrrp {
            let status = vrrp.status();
            tokio::spawn(async move {
                if let Ok(all) = status.await {
                    dump::write(dump, &all);
                }
            });
        }
    }

    /// By a plan, with the rules of marks and the virtual addresses that there are.
    pub(super) fn terms(&self, plan: &Plan) -> Terms {
        Terms::new(self.marks.rules(), plan, &self.held)
    }

    /// Starts VRRP if the plan is the first that has a virtual router, or a BFD session; whether it is. No address comes
    /// before it was asked for here.
    pub(super) fn start_vrrp(&mut self, plan: &Plan) -> Result<bool, VrrpError> {
        let is_asked_for =
            !plan.vrrp.setup.virtual_routers.is_empty() || !plan.vrrp.watched.bfd.is_empty();
        let starts = self.vrrp.is_none() && is_asked_for;
        if starts {
            self.vrrp = Some(Vrrp::start(
                plan.vrrp.clone(),
                Claims::Awaited,
                self.scripts.clone(),
                self.vrrp_teller.clone(),
            )?);
        }
        Ok(starts)
    }

    /// Has VRRP do what a plan says.
    pub(super) fn follow_vrrp(&self, plan: &Plan) {
        if let Some(vrrp) = &self.vrrp
            && plan.vrrp != self.plan.vrrp
        {
            vrrp.reload(plan.vrrp.clone());
        }
    }

    pub(super) fn answer_vrrp(&self, answer: oneshot::Sender<Vec<Reply>>) {
        let status = self.vrrp.as_ref().map(Vrrp::status);
        tokio::spawn(async move {
            let reply = match status {
                None => Reply::success(&VrrpInfo::default()),
                Some(status) => match status.await {
                    Ok(all) => Reply::success(&VrrpInfo::new(&all)),
                    Err(_) => Reply::failure(ErrorKind::Internal, "VRRP has ended"),
                },
            };
            let _ = answer.send(vec![reply]);
        });
    }

    /// The standby is told, and the addresses go, before anything else ends.
    pub(super) fn stop_vrrp(&mut self) {
        self.vrrp = None;
        while let Ok(news) = self.vrrp_news.try_recv() {
            self.notify_of(&news);
        }
    }
}

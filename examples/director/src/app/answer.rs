//! What the control socket asks.

use std::sync::Arc;
use std::time::Instant;

use lvs_fwd::marks::MarkRule;
use lvs_sched::{Family, ServiceKey};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tracing::{error, info};

use super::App;
use crate::claims::{self, Terms};
use crate::control::answers;
use crate::control::by_hand::{
    self, MarkInfo, MarksInfo, MarksQuestion, TunableInfo, TunablesInfo, TunablesQuestion,
};
use crate::control::configuration::{self, RunningConfig};
use crate::control::drain::{self, DrainQuestion, DrainsInfo};
use crate::control::events;
use crate::control::health::{self, HealthInfo};
use crate::control::protocol::{
    Edit, ErrorKind, Operation, Reply, ReplyError, RestoreInfo, StatusInfo,
};
use crate::control::server::Question;
use crate::control::vrrp;
use crate::control::why::{self, WhyQuestion};
use crate::explain::Inquiry;
use crate::logging::chain;
use crate::marks;
use crate::notify::Event;
use crate::tunables::{self, Setting};

impl App {
    pub(super) async fn answer(&mut self, question: Question) {
        let Question { operation, answer } = question;
        let reply = match operation {
            Operation::Services => {
                Reply::success(&answers::services(&self.scheduler, |key, addr| {
                    self.tunnels.tunnel(key, addr)
                }))
            }
            Operation::Timeouts => Reply::success(&answers::timeouts(&self.scheduler)),
            Operation::Connections => return self.answer_connections(answer),
            Operation::Status => return self.answer_status(answer),
            Operation::Edit(edit) => match self.carry_out(&[edit]).await.pop() {
                Some(Some(refusal)) => Reply::refused(refusal),
                _ => Reply::success(&()),
            },
            Operation::Restore(batch) => Reply::success(&RestoreInfo {
                outcomes: self.carry_out(&batch.edits).await,
            }),
            Operation::Other { op, arguments } => match op.as_str() {
                configuration::OPERATION => {
                    Reply::success(&RunningConfig::new(self.file.config(), self.file.faults()))
                }
                events::RELOAD => {
                    let outcome = self.reload().await;
                    Reply::success(&events::ReloadInfo {
                        is_done: outcome.is_ok(),
                        summary: outcome.map_or_else(|reason| reason, str::to_owned),
                    })
                }
                health::OPERATION => Reply::success(&HealthInfo::new(Instant::now(), &self.pools)),
                vrrp::OPERATION => return self.answer_vrrp(answer),
                why::OPERATION => match read(arguments) {
                    Ok(question) => return self.answer_why(question, answer),
                    Err(refusal) => refusal,
                },
                by_hand::MARKS => match read(arguments) {
                    Ok(question) => self.change_marks(&question).await,
                    Err(refusal) => refusal,
                },
                by_hand::TUNABLES => match read(arguments) {
                    Ok(question) => self.change_tunables(&question),
                    Err(refusal) => refusal,
                },
                drain::OPERATION => match read(arguments) {
                    Ok(question) => self.answer_drain(&question),
                    Err(refusal) => refusal,
                },
                _ => Reply::unknown(&op),
            },
            _ => Reply::unknown("of another version"),
        };
        // An asker that went away needs no answer.
        let _ = answer.send(vec![reply]);
    }

    /// Carries out changes by hand, in order: the claim grows before the first and shrinks after the last. What came of
    /// each: nothing, or why it was refused.
    async fn carry_out(&mut self, edits: &[Edit]) -> Vec<Option<ReplyError>> {
        let terms = self.terms(&self.plan);
        let mut grown = claims::present(&self.scheduler, &self.plan, &terms);
        self.edits.add_claims(edits, &terms, &mut grown);
        if let Err(error) = self.data_path.set_claims(grown).await {
            let message = chain(&error);
            error!("{message}");
            let refusal = ReplyError {
                kind: ErrorKind::Internal,
                message,
            };
            return vec![Some(refusal); edits.len()];
        }
        let now = Instant::now();
        let outcomes = edits
            .iter()
            .map(|edit| self.edits.apply(now, edit).err())
            .collect();
        let wanted = claims::present(&self.scheduler, &self.plan, &terms);
        if let Err(error) = self.data_path.set_claims(wanted).await {
            error!("{}", chain(&error));
        }
        self.remark_unmarked();
        outcomes
    }

    async fn change_marks(&mut self, question: &MarksQuestion) -> Reply {
        let mut marks = self.marks.clone();
        let rule = |text: &Option<String>| {
            let rule = text.as_ref().map(|text| marks::parse_rule(text));
            rule.transpose()
                .map_err(|fault| Reply::failure(ErrorKind::Invalid, fault.to_string()))
        };
        let (delete, add) = match (rule(&question.delete), rule(&question.add)) {
            (Ok(delete), Ok(add)) => (delete, add),
            (Err(refusal), _) | (_, Err(refusal)) => return refusal,
        };
        if question.flush {
            marks.flush();
        }
        if delete.is_some_and(|rule| !marks.delete(&rule)) {
            return Reply::failure(ErrorKind::Invalid, "there is no such rule");
        }
        if let Some(rule) = add {
            marks.add(rule, question.first);
        }
        if marks != self.marks {
            let terms = Terms::new(marks.rules(), &self.plan, &self.held);
            let wanted = claims::present(&self.scheduler, &self.plan, &terms);
            if let Err(error) = self.data_path.set_claims(wanted).await {
                return Reply::failure(ErrorKind::Internal, chain(&error));
            }
            self.marks = marks;
            info!(
                "by hand: rules of marks changed, now {}",
                self.marks.rules().len()
            );
            self.remark_unmarked();
        }
        let services = self.scheduler.services();
        let served = |rule: &MarkRule| {
            services.iter().any(|service| match service.key() {
                Some(ServiceKey::Mark { family, mark }) => {
                    mark.get() == rule.mark && rule.is_of(family == Family::Inet6)
                }
                _ => false,
            })
        };
        let info = |(rule, from_file): (&MarkRule, bool)| MarkInfo {
            rule: marks::format_rule(rule),
            from_file,
            served: served(rule),
        };
        Reply::success(&MarksInfo {
            rules: self.marks.listed().map(info).collect(),
        })
    }

    fn change_tunables(&mut self, question: &TunablesQuestion) -> Reply {
        let settings: Result<Vec<Setting>, _> = question
            .set
            .iter()
            .map(|text| tunables::parse_setting(text))
            .collect();
        let settings = match settings {
            Ok(settings) => settings,
            Err(fault) => return Reply::failure(ErrorKind::Invalid, fault.to_string()),
        };
        let mut tunables = self.scheduler.tunables();
        for setting in &settings {
            info!("by hand: {} = {}", setting.name, setting.value);
            tunables::set(&mut tunables, setting);
        }
        if !settings.is_empty() {
            self.scheduler.set_tunables(tunables);
            self.follow_tunables();
        }
        let info = |setting: Setting| TunableInfo {
            default: tunables::default_of(setting.name).map_or_else(String::new, |one| one.value),
            meaning: tunables::describe(setting.name)
                .map_or("", |(meaning, _)| meaning)
                .into(),
            name: setting.name.into(),
            value: setting.value,
        };
        let now = tunables::all(&self.scheduler.tunables());
        Reply::success(&TunablesInfo {
            tunables: now.into_iter().map(info).collect(),
        })
    }

    fn answer_drain(&mut self, question: &DrainQuestion) -> Reply {
        let outcome = self.pools.drains().answer(Instant::now(), question);
        self.tell_drains();
        match outcome {
            Ok(servers) => Reply::success(&DrainsInfo { servers }),
            Err(why) => Reply::failure(ErrorKind::Invalid, why),
        }
    }

    /// Whoever listens hears what drains have come to.
    pub(super) fn tell_drains(&mut self) {
        for event in self.pools.drains().take_news() {
            self.notifier.tell(Event::Drain(event));
        }
    }

    fn answer_connections(&self, answer: oneshot::Sender<Vec<Reply>>) {
        let (sender, mut receiver) = unbounded_channel();
        self.data_path.ask_connections(&sender);
        drop(sender);
        let now = Instant::now();
        let templates = self.scheduler.templates();
        let mut infos: Vec<_> = templates
            .iter()
            .map(|entry| answers::template(now, entry))
            .collect();
        tokio::spawn(async move {
            while let Some(part) = receiver.recv().await {
                infos.extend(part.iter().map(|entry| answers::connection(now, entry)));
            }
            let _ = answer.send(Reply::connections(&infos));
        });
    }

    fn answer_why(&self, question: WhyQuestion, answer: oneshot::Sender<Vec<Reply>>) {
        let inquiry = Inquiry::begin(question, self.data_path.view(), self.data_path.workers());
        let Some(owner) = inquiry.owner() else {
            let _ = answer.send(vec![Reply::success(&inquiry.left())]);
            return;
        };
        let asked = inquiry.asked();
        let receiver = self.data_path.ask_worker(owner, move |worker| {
            let now = Instant::now();
            (now, asked.explain(now, worker.balancer()))
        });
        let (scheduler, mut plan) = (Arc::clone(&self.scheduler), self.plan.clone());
        plan.tunnels.clone_from(&self.tunnels.present());
        tokio::spawn(async move {
            let reply = match receiver.await {
                Ok((now, explanation)) => {
                    Reply::success(&inquiry.finish(now, &explanation, &scheduler, &plan))
                }
                Err(_) => Reply::failure(ErrorKind::Internal, "the worker has ended"),
            };
            let _ = answer.send(vec![reply]);
        });
    }

    fn answer_status(&mut self, answer: oneshot::Sender<Vec<Reply>>) {
        let mut status = StatusInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            configuration: self.options.file.display().to_string(),
            workers: self.data_path.workers(),
            services: self.scheduler.services().len() as u64,
            connections: 0,
            counters: self.data_path.counters(),
            claimed: self.data_path.claimed(),
            unreachable: self.unreachable.list(),
        };
        let lengths: Vec<_> = (0..status.workers)
            .map(|number| {
                self.data_path
                    .ask_worker(number, |worker| worker.balancer().worker().len())
            })
            .collect();
        tokio::spawn(async move {
            for (worker, length) in status.counters.iter_mut().zip(lengths) {
                worker.connections = length.await.unwrap_or(0) as u64;
                status.connections += worker.connections;
            }
            let _ = answer.send(vec![Reply::success(&status)]);
        });
    }
}

/// What comes with an operation.
fn read<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, Reply> {
    serde_json::from_value(arguments.into())
        .map_err(|error| Reply::failure(ErrorKind::BadRequest, error.to_string()))
}

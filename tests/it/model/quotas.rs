//! What is told of quotas, counted anew at every turn.

use super::{Model, Span, judged_period};

/// Something told: when, of which account and metric, what, what is used, and what was used in a period that ended.
pub(crate) type News = (i64, u8, u8, &'static str, i64, Option<i64>);

/// What was told of a quota in a period: 1 most of it, 2 more than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    quota: (i64, Span),
    period: (i64, i64),
    band: u8,
}

impl Model {
    pub(super) fn tell_quotas(&mut self, at: i64) {
        self.told.retain(|key, told| self.quotas.get(key) == Some(&told.quota));
        for ((account, metric), quota) in self.quotas.clone() {
            let (limit, span) = quota;
            let period = judged_period(span, at);
            let used = self.used_between(account, metric, period);
            let fresh = Told { quota, period, band: 0 };
            let mut told = self.told.get(&(account, metric)).copied().unwrap_or(fresh);
            if told.period != period {
                if told.band > 0 {
                    let ended = self.used_between(account, metric, told.period);
                    self.news.push((at, account, metric, "quota.reset", used, Some(ended)));
                }
                told = fresh;
            }
            let most = limit > 0 && used * 100 >= limit * 1_000 * 80;
            if most && told.band < 1 {
                self.news.push((at, account, metric, "quota.threshold_reached", used, None));
                told.band = 1;
            }
            if used > limit * 1_000 && told.band < 2 {
                self.news.push((at, account, metric, "quota.exceeded", used, None));
                told.band = 2;
            }
            self.told.insert((account, metric), told);
        }
    }

    fn used_between(&self, account: u8, metric: u8, (from, to): (i64, i64)) -> i64 {
        let own = self.events.iter().filter(|event| (event.account, event.metric) == (account, metric));
        own.filter(|event| from <= event.at && event.at < to).map(|event| event.value).sum()
    }
}

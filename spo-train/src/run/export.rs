//! The end of a run: its last policy as a whole model.

use crate::TrainError;
use crate::events::Event;
use crate::persist::directory;
use crate::run::stages::Driver;

impl Driver<'_> {
    /// Writes a policy as a whole model.
    pub(super) fn export(&mut self, policy: &str) -> Result<(), TrainError> {
        let dir = match &self.plan.steering {
            // No weights of a whole model are one policy for many users.
            Some(_) => self.resident.policies.path(policy),
            None => {
                let (model, dir) = (self.resident.take(policy)?, self.reporter.out.join(directory::MODEL));
                let team = self.reporter.team.clone();
                team.root(|| self.resident.policies.export(policy, model, &dir, &mut self.reporter))?;
                dir
            }
        };
        let (seconds, report) = (self.reporter.seconds(), self.reporter.out.join(directory::REPORT));
        self.reporter.emit(Event::RunFinished { seconds, model: dir, report })
    }
}

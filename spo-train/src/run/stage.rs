//! A stage of a run: done as a whole and noted, or read from the journal.

use crate::TrainError;
use crate::persist::durable::Mark;
use crate::run::stages::Driver;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

impl Driver<'_> {
    /// Does the work of a stage, or takes its result from the journal if it is finished. `files` are
    /// what it writes, or may write, relative to the run directory.
    pub(super) fn stage<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        files: &[PathBuf],
        work: impl FnOnce(&mut Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let (team, journal) = (self.reporter.team.clone(), &mut self.journal);
        // A list, as JSON cannot tell nothing from a result that says nothing.
        let mut finished = team.root(|| {
            let found = journal.as_mut().map_or(Ok(None), |journal| journal.finished(name))?;
            Ok::<_, TrainError>(Vec::from_iter(found))
        })?;
        if let Some(result) = finished.pop() {
            return Ok(result);
        }
        let result = work(self)?;
        team.root(|| self.note_finished(name, files, &result))?;
        self.reporter.check_stop()?;
        Ok(result)
    }

    fn note_finished<T: Serialize>(&mut self, name: &str, files: &[PathBuf], result: &T) -> Result<(), TrainError> {
        let written = files.iter().filter(|path| self.reporter.out.join(path).exists());
        let marks = written.map(|path| Mark::all(&self.reporter.out, path));
        let marks = marks.collect::<Result<Vec<_>, _>>()?.concat();
        if let Some((events, journal)) = self.reporter.mark()?.zip(self.journal.as_mut()) {
            self.checkpoints.stage_finished(events.bytes);
            journal.finish(name, events, marks, result)?;
        }
        Ok(())
    }
}

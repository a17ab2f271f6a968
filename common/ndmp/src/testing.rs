//! A drive made of a list, for tests (feature `testing`): what SSC-4 says, nothing more.

use bytes::Bytes;

use crate::tape::{DriveStep, Failure, FailureKind, Loaded, SpaceEnd, StepResult};

/// An object on tape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A record.
    Record(Bytes),
    /// A filemark.
    Mark,
}

/// The drive and its medium.
#[derive(Debug, Default)]
pub struct ListDrive {
    /// What is on tape.
    pub objects: Vec<Object>,
    /// Index of the object that is next.
    pub at: usize,
    /// The answer to [`DriveStep::State`].
    pub loaded: Loaded,
    /// Bytes to early warning and to the physical end.
    pub warning: Option<(usize, usize)>,
    /// What the next steps fail with, last first.
    pub failures: Vec<FailureKind>,
}

impl ListDrive {
    /// A drive with an empty tape in it.
    pub fn with_tape() -> Self {
        let loaded = Loaded { medium: true, ..Loaded::default() };
        Self { loaded, ..Self::default() }
    }

    fn used(&self) -> usize {
        let length = |object: &Object| match object {
            Object::Record(data) => data.len(),
            Object::Mark => 1,
        };
        self.objects[..self.at].iter().map(length).sum()
    }

    fn put(&mut self, object: Object) -> StepResult {
        let length = if let Object::Record(data) = &object { data.len() } else { 1 };
        let used = self.used() + length;
        if self.warning.is_some_and(|(_, end)| used > end) {
            return StepResult::Overflow;
        }
        self.objects.truncate(self.at);
        self.objects.push(object);
        self.at += 1;
        match self.warning.is_some_and(|(warning, _)| used > warning) {
            true => StepResult::EarlyWarning,
            false => StepResult::Written,
        }
    }

    fn space(&mut self, count: i64, marks: bool) -> StepResult {
        let mut left = count.unsigned_abs();
        let mut stop = SpaceEnd::Done;
        while left > 0 {
            if count < 0 && self.at == 0 {
                stop = SpaceEnd::BeginningOfTape;
                break;
            }
            if count > 0 && self.at == self.objects.len() {
                stop = SpaceEnd::EndOfData;
                break;
            }
            let passed = if count > 0 { self.at } else { self.at - 1 };
            self.at = if count > 0 { self.at + 1 } else { self.at - 1 };
            let is_mark = self.objects[passed] == Object::Mark;
            left -= u64::from(is_mark == marks);
            if is_mark && !marks {
                stop = SpaceEnd::Filemark;
                break;
            }
        }
        StepResult::Spaced { residual: left, stop }
    }

    /// Does a step.
    pub fn perform(&mut self, step: &DriveStep) -> StepResult {
        if let Some(kind) = self.failures.pop() {
            return StepResult::Failed(Failure::new(kind, "made to fail"));
        }
        if !self.loaded.medium && *step != DriveStep::State {
            return StepResult::Failed(Failure::new(FailureKind::NoMedium, "empty"));
        }
        match step {
            DriveStep::Rewind => {
                self.at = 0;
                StepResult::Done
            }
            DriveStep::SpaceRecords(count) => self.space(*count, false),
            DriveStep::SpaceFilemarks(count) => self.space(*count, true),
            DriveStep::Read { max } => match self.objects.get(self.at).cloned() {
                None => StepResult::EndOfData,
                Some(Object::Mark) => {
                    self.at += 1;
                    StepResult::Filemark
                }
                Some(Object::Record(data)) => {
                    self.at += 1;
                    let room = data.len().min(*max as usize);
                    StepResult::Record { length: data.len() as u64, data: data.slice(..room) }
                }
            },
            DriveStep::Write(_) | DriveStep::Filemarks(1..) if self.loaded.write_protected => {
                StepResult::Failed(Failure::new(FailureKind::WriteProtected, "protected"))
            }
            DriveStep::Write(data) => self.put(Object::Record(data.clone())),
            DriveStep::Filemarks(count) => {
                (0..*count).fold(StepResult::Written, |_, _| self.put(Object::Mark))
            }
            DriveStep::Unload => {
                self.at = 0;
                self.loaded.medium = false;
                StepResult::Done
            }
            DriveStep::State => StepResult::State(self.loaded),
            DriveStep::Position => {
                let marks = self.objects[..self.at].iter().filter(|o| **o == Object::Mark);
                StepResult::Position { file: marks.count() as u64, at_bot: self.at == 0 }
            }
        }
    }
}

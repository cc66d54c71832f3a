//! Reads everything that is stored of a run, and checks that nothing is missing and nothing is there twice.

use pgsoak_proto::evidence::{AttemptEnded, Body, Frame};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::{MAX_MESSAGE_BYTES, wire, wire::control_client::ControlClient};
use std::{collections::BTreeMap, future::Future};

/// What one attempt left behind.
#[derive(Debug)]
pub struct Attempt {
    /// In the order of their sequences.
    pub frames: Vec<Frame>,
}

/// Asks a coordinator's Control service at `unix:PATH`.
pub fn ask<T, F: Future<Output = T>>(
    url: &str,
    question: impl FnOnce(ControlClient<tonic::transport::Channel>) -> F,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).unwrap();
        let client = ControlClient::new(endpoint.connect().await.unwrap())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        question(client).await
    })
}

/// The run as it is now.
pub fn view(url: &str, run: &str) -> wire::RunView {
    let request = wire::GetRunRequest { run_id: run.to_owned() };
    ask(url, async |mut client| client.get_run(request).await.unwrap().into_inner())
}

/// All stored evidence of a run, by job and attempt.
pub fn stored(url: &str, run: &str) -> BTreeMap<(String, u32), Attempt> {
    let request = wire::ReadEvidenceRequest { run_id: run.to_owned(), ..Default::default() };
    ask(url, async |mut client| {
        let mut stream = client.read_evidence(request).await.unwrap().into_inner();
        let mut found: BTreeMap<(String, u32), Attempt> = BTreeMap::new();
        while let Some(item) = stream.message().await.unwrap() {
            let frame = Frame::try_from(item.frame.unwrap()).unwrap();
            let attempt = found.entry((item.job_id, item.attempt));
            attempt.or_insert_with(|| Attempt { frames: Vec::new() }).frames.push(frame);
        }
        found
    })
}

impl Attempt {
    /// How it ended.
    pub fn ended(&self) -> &AttemptEnded {
        match self.frames.last().map(|frame| &frame.body) {
            Some(Body::Ended(ended)) => ended,
            other => panic!("the last frame is {other:?}"),
        }
    }

    /// Ticks with samples, in the order they are stored.
    pub fn ticks(&self) -> Vec<u64> {
        let samples = self.frames.iter().filter_map(|frame| match &frame.body {
            Body::Samples(samples) => Some(samples.ticks.clone()),
            _ => None,
        });
        samples.flatten().collect()
    }

    /// Ticks that are known to be missing.
    pub fn gaps(&self) -> u64 {
        let gaps = self.frames.iter().filter_map(|frame| match &frame.body {
            Body::Gap(gap) => Some(gap.ticks),
            _ => None,
        });
        gaps.sum()
    }

    /// Readings at rest.
    pub fn rounds(&self) -> usize {
        self.frames.iter().filter(|frame| matches!(frame.body, Body::AtRest(_))).count()
    }

    /// Sequences 1, 2, 3 … without a hole, from a first frame to a last one.
    pub fn check_whole(&self) {
        for (place, frame) in (1_u64..).zip(&self.frames) {
            assert_eq!(frame.sequence, place, "a frame is missing or there twice");
        }
        assert!(matches!(self.frames[0].body, Body::Started(_)), "{:?}", self.frames[0]);
        let ends = self.frames.iter().filter(|frame| matches!(frame.body, Body::Ended(_))).count();
        assert_eq!(ends, 1, "an attempt ends once");
    }

    /// As [`Self::check_whole`], and every tick is stored exactly once or counted as a gap, as the runner counted them.
    pub fn check_complete(&self) {
        self.check_whole();
        let ended = self.ended();
        assert_eq!(ended.outcome, Outcome::Finished, "{ended:?}");
        let ticks = self.ticks();
        assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "a tick is there twice");
        let stored = u64::try_from(ticks.len()).unwrap();
        assert_eq!(stored, ended.ticks_sampled, "the runner took other ticks than are stored");
        assert_eq!(stored + self.gaps(), ended.ticks, "a tick is neither stored nor a gap");
    }
}

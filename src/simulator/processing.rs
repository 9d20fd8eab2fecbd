//! A job from its last input to its result, and the transfers to and from the addresses that it
//! names.
//!
//! Started by `submission`, `notify` and `finish`. Invariant: a job finishes once; its outputs are
//! written to their `uploadUrl` before its callback is sent.

use std::convert::Infallible;

use axum::http::{HeaderMap, header};
use futures_util::stream;
use tokio::{task::JoinHandle, time::sleep};

use super::connection::piece_bytes;
use super::job::{AcceptedJob, JobState, Output, OutputStatus, Upload};
use super::{Processing, Simulator, mesh, upload_check};

impl Simulator {
    /// Finishes a job now, even if it still waits for inputs, and sends its callback; false if
    /// there is no unfinished job with this id.
    pub fn finish(&self, engine_job_id: &str) -> bool {
        let finished = self.finish_with(engine_job_id, None);
        if finished {
            self.spawn_conclude(engine_job_id);
        }
        finished
    }

    /// As `finish`, and waits until the callback has ended; dropping the future does not stop it.
    pub(super) async fn finish_and_wait(&self, engine_job_id: &str) {
        if self.finish_with(engine_job_id, None) {
            // Fails only while the simulator is stopping.
            self.spawn_conclude(engine_job_id).await.ok();
        }
    }

    fn spawn_conclude(&self, engine_job_id: &str) -> JoinHandle<()> {
        let (simulator, engine_job_id) = (self.clone(), engine_job_id.to_owned());
        self.spawn(async move { simulator.conclude(&engine_job_id).await })
    }

    /// Starts the work of a job that has all its inputs.
    pub(super) fn start_if_ready(&self, engine_job_id: &str) {
        let started = self.change(|state| {
            let job = state.job_mut(engine_job_id)?;
            let ready = job.state == JobState::Waiting && job.has_its_inputs();
            ready.then(|| job.state = JobState::Processing)
        });
        if started.is_some() {
            let (simulator, engine_job_id) = (self.clone(), engine_job_id.to_owned());
            self.spawn(async move { simulator.process(&engine_job_id).await });
        }
    }

    async fn process(&self, engine_job_id: &str) {
        let error = self.fetch_inputs(engine_job_id).await.err();
        if error.is_none() {
            let Processing::After(duration) = self.options().processing else {
                return;
            };
            sleep(duration).await;
        }
        if self.finish_with(engine_job_id, error) {
            self.conclude(engine_job_id).await;
        }
    }

    /// Writes the outputs of a finished job to their `uploadUrl` and sends its callback.
    async fn conclude(&self, engine_job_id: &str) {
        if let Some(job) = self.job(engine_job_id)
            && self.options().write_uploads
        {
            for output in &job.outputs {
                self.write_output(&job, output).await;
            }
        }
        self.deliver(engine_job_id).await;
    }

    /// Writes an output to its `uploadUrl`; failures are only logged, since the Engine's behaviour
    /// in that case is not documented.
    async fn write_output(&self, job: &AcceptedJob, output: &Output) {
        let (Some(upload_url), Some(OutputStatus::Available)) = (&output.upload_url, output.status)
        else {
            return;
        };
        let mut request = self.shared.client.put(upload_url);
        if upload_url.contains(".blob.core.windows.net/") {
            request = request.header("x-ms-blob-type", "BlockBlob");
        }
        let content = mesh::content(job, output);
        let size_bytes = content.size_bytes();
        let pieces = content.pieces(0..size_bytes, piece_bytes(0)).map(Ok::<_, Infallible>);
        let body = reqwest::Body::wrap_stream(stream::iter(pieces));
        let request = request.header(header::CONTENT_LENGTH, size_bytes);
        let answer = request.body(body).send().await;
        if let Err(error) = answer.and_then(reqwest::Response::error_for_status) {
            let error = error.without_url();
            tracing::warn!(job.id = job.engine_job_id, %error, "an output could not be written");
        }
    }

    /// Fetches the inputs that have a download URL, if the options say so.
    async fn fetch_inputs(&self, engine_job_id: &str) -> Result<(), String> {
        let options = self.options();
        let Some(job) = self.job(engine_job_id).filter(|_| options.fetch_downloads) else {
            return Ok(());
        };
        for input in &job.inputs {
            let Some(download_url) = &input.download_url else {
                continue;
            };
            let upload = self.fetch(download_url).await;
            let upload = upload.map_err(|error| {
                format!("{} was not fetched: {}", input.name, error.without_url())
            })?;
            if options.check_uploads {
                upload_check::check(&input.extension, &upload)?;
            }
            self.change(|state| {
                let job = state.job_mut(engine_job_id)?;
                job.input_mut(&input.name)?.upload = Some(upload);
                Some(())
            });
        }
        Ok(())
    }

    async fn fetch(&self, download_url: &str) -> reqwest::Result<Upload> {
        let answer = self.shared.client.get(download_url).send().await?;
        Upload::collect(HeaderMap::new(), answer.error_for_status()?.bytes_stream()).await
    }
}

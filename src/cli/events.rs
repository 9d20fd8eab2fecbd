//! `finishline events`: lists past events and follows new ones.
//!
//! Events are shown in the order of their numbers, without gaps.

use std::io;

use super::{
    Failure, Screen,
    connection::{self, job_id},
    following::{Follow, Following, SILENCE},
    or_interrupted,
    table::time,
};
use crate::{api, client::Followed, domain::ids::JobId};

/// Width of the longest event type.
const TYPE_WIDTH: usize = 21;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Go on with what happens, from now unless --after says otherwise
    #[arg(long)]
    follow: bool,
    /// Only what came after the event with this number
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
    /// Only of this job
    #[arg(long, value_name = "ID", value_parser = job_id)]
    job: Option<JobId>,
}

pub(super) async fn run(
    connection: &connection::Arguments,
    arguments: Arguments,
) -> Result<(), Failure> {
    let after = if arguments.follow { arguments.after } else { arguments.after.or(Some(0)) };
    let follow = Follow { job: arguments.job, after, silence: SILENCE, is_patient: false };
    let mut following = Following::new(connection.client()?, follow);
    or_interrupted(async {
        let mut form =
            Form { screen: connection.screen(), is_following: arguments.follow, is_begun: false };
        loop {
            match following.next().await? {
                Followed::Event { event, json } => form.event(&event, &json)?,
                Followed::CaughtUp(_) if arguments.follow => {}
                Followed::CaughtUp(_) => return Ok(form.end()?),
            }
        }
    })
    .await
}

struct Form {
    screen: Screen,
    /// Whether to print one JSON value per line as events arrive, instead of one value for all.
    is_following: bool,
    is_begun: bool,
}

impl Form {
    fn event(&mut self, event: &api::Event, json: &str) -> io::Result<()> {
        match (self.screen.is_json(), self.is_following) {
            (false, _) => print(&mut self.screen, event)?,
            (true, true) => self.screen.json_text(json.as_bytes())?,
            (true, false) => {
                let before = if self.is_begun { "," } else { "{\"events\":[" };
                self.screen.json_piece(before.as_bytes())?;
                self.screen.json_piece(json.as_bytes())?;
            }
        }
        self.is_begun = true;
        if self.is_following { self.screen.flush() } else { Ok(()) }
    }

    fn end(mut self) -> io::Result<()> {
        if self.screen.is_json() {
            self.screen.line(if self.is_begun { "]}" } else { "{\"events\":[]}" })?;
        }
        self.screen.flush()
    }
}

/// Prints an event on one line: number, time in UTC, type, job, data.
pub(super) fn print(screen: &mut Screen, event: &api::Event) -> io::Result<()> {
    let data = event.data.get();
    let data = if data == "{}" { "" } else { data };
    let (kind, job) = (&event.kind, &event.job_id);
    let line = format!("{:>6}  {}  {kind:TYPE_WIDTH$}  {job}  {data}", event.seq, time(event.at));
    screen.line(line.trim_end())
}

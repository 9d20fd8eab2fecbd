//! `finishline jobs erase`: erases jobs, or all jobs of an end user.
//!
//! Nothing is erased without consent: an answer at the terminal, or `--yes`.

use std::io::{self, IsTerminal};

use crate::{
    api,
    cli::{Exit, Failure, Screen, connection::job_id, or_interrupted, say, screen::ask},
    client::{Client, ClientError},
    domain::ids::JobId,
};

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "end_user"])))]
pub(in crate::cli) struct Arguments {
    /// Job ids
    #[arg(value_name = "ID", value_parser = job_id)]
    ids: Vec<JobId>,
    /// All jobs of this end user
    #[arg(
        long, value_name = "END_USER_ID",
        value_parser = clap::builder::NonEmptyStringValueParser::new(),
    )]
    end_user: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen,
    arguments: Arguments,
) -> Result<(), Failure> {
    let what = match (&arguments.end_user, arguments.ids.len()) {
        (Some(end_user), _) => format!("all jobs of end user {end_user:?}"),
        (None, 1) => "1 job".to_owned(),
        (None, count) => format!("{count} jobs"),
    };
    if !arguments.yes {
        agree(&what)?;
    }
    or_interrupted(async {
        let (erased, failed) = match &arguments.end_user {
            Some(end_user) => (erase_of(client, end_user).await?, None),
            None => erase_each(client, &arguments.ids).await?,
        };
        let json = serde_json::to_vec(&api::Erased { erased })?;
        screen.done(&json, &format!("erased: {erased}"))?;
        failed.map_or(Ok(()), Err)
    })
    .await
}

/// Asks on the terminal; without a terminal `--yes` is needed.
fn agree(what: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let line = format!("{what} would be erased for good: say --yes");
        return Err(Failure { exit: Exit::Usage, line });
    }
    ask(&format!("Erase {what} with all that was received for them, for good? [y/N]"))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure { exit: Exit::Failed, line: "nothing was erased".into() }),
    }
}

async fn erase_of(client: &Client, end_user: &str) -> Result<u64, Failure> {
    let query = [("endUserId", end_user.to_owned())];
    Ok(client.delete::<api::Erased>("/v1/jobs", &query).await?.value.erased)
}

/// Erases one after another; a job that does not exist does not stop the others.
async fn erase_each(client: &Client, ids: &[JobId]) -> Result<(u64, Option<Failure>), ClientError> {
    let (mut erased, mut failed) = (0, None);
    for id in ids {
        match client.delete::<api::Erased>(&format!("/v1/jobs/{id}"), &[]).await {
            Ok(answer) => erased += answer.value.erased,
            Err(error) if error.is_passing() || error.is_refusal() => {
                say(&format!("{erased} erased before it broke off at job {id}"));
                return Err(error);
            }
            Err(error) => {
                say(&format!("job {id}: {error}"));
                failed = Some(Failure::silent(Exit::Failed));
            }
        }
    }
    Ok((erased, failed))
}

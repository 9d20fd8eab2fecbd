//! The contract of design section 4, held by the running program: everything here goes through its
//! doors or its command line, as a user's would.

#[path = "../support/mod.rs"]
mod support;

mod smoke {
    use crate::support::*;

    #[tokio::test]
    async fn a_job_goes_through() {
        let mut service = Service::start().await;
        let job = service.submitted(&ready_job()).await;
        let job = service.finish(&job).await;
        assert_eq!(job["status"], "succeeded");
        service.restart().await;
        assert_eq!(service.job(text(&job["id"])).await["status"], "succeeded");
        let url = service.callback_url(text(&job["id"]));
        assert_eq!(service.post_to(&url, "{}").await.status, 200);
        let folder = tempfile::tempdir().unwrap();
        let mut program = Program::serve(folder.path(), &[]).await;
        assert!(program.api.starts_with("http://127.0.0.1:"), "{}", program.ready);
        program.kill();
        let program = Program::serve(folder.path(), &[]).await;
        let ended = program.terminate().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

pub async fn measure() {}

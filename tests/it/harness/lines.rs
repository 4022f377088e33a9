//! A body that is read while it comes, a line at a time.

use reqwest::Response;

use super::LONG;

/// The whole lines of a body as they come; `None` at its end or where it broke.
#[derive(Debug)]
pub(crate) struct Lines {
    response: Response,
    buffer: Vec<u8>,
    /// The body has ended in order.
    pub(crate) is_whole: bool,
}

impl Lines {
    pub(crate) fn new(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        Self {
            response,
            buffer: Vec::new(),
            is_whole: false,
        }
    }

    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let chunk = tokio::time::timeout(LONG, self.response.chunk()).await;
            match chunk.expect("something comes within the limit") {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) => {
                    self.is_whole = true;
                    return None;
                }
                Err(_) => return None,
            }
        }
    }
}

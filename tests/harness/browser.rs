//! The real Chromium, driven by chromedriver, and what a person does in it.
//!
//! Nothing stays behind, even if the test process is killed: a small shell script runs chromedriver and
//! reads a pipe that only the test process can write to. When the pipe ends, however the process did,
//! the script ends chromedriver's process group, which is Chromium's too, and removes its directory.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use thirtyfour::{
    By, Capabilities, CapabilitiesHelper, ChromiumLikeCapabilities, DesiredCapabilities, Key,
    LoggingPrefsLogLevel, WebDriver, WebElement,
    extensions::query::{ElementPollerWithTimeout, ElementQueryable},
};

/// Runs the rest of its arguments, with all temporary files in `$1`, until standard input ends. The
/// script ignores the signals that a terminal sends to the tests.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
dir=$1
shift
HOME=$dir TMPDIR=$dir XDG_CONFIG_HOME=$dir XDG_CACHE_HOME=$dir \
    setsid "$@" >"$dir/log" 2>&1 </dev/null &
driver=$!
cat >/dev/null
kill -s KILL -- "-$driver" 2>/dev/null
wait "$driver"
# Chromium is killed with it, and takes a moment to be gone.
tries=0
while kill -0 -- "-$driver" 2>/dev/null && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.02
done
tries=0
while ! rm -rf "$dir" 2>/dev/null && [ "$tries" -lt 50 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
"#;

/// How long a test waits for a page or for chromedriver.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is checked.
const INTERVAL: Duration = Duration::from_millis(50);

/// Chromium with a session of its own. It ends when it is dropped, or when the process ends.
pub struct Browser {
    pub driver: WebDriver,
    chromedriver: Chromedriver,
}

impl Browser {
    /// Starts a browser.
    pub async fn start() -> Self {
        let (chromedriver, port) = Chromedriver::start();
        let url = format!("http://127.0.0.1:{port}");
        let driver = WebDriver::builder(url, capabilities())
            .poller(Arc::new(ElementPollerWithTimeout::new(PATIENCE, INTERVAL)))
            .request_timeout(PATIENCE * 2)
            .await
            .unwrap();
        Self { driver, chromedriver }
    }

    pub async fn open(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    /// Waits for an element of a CSS selector and returns the first.
    pub async fn see(&self, css: &str) -> WebElement {
        let found = self.driver.query(By::Css(css)).first().await;
        match found {
            Ok(element) => element,
            Err(error) => panic!("no {css}: {error}\n{}", self.situation().await),
        }
    }

    /// Returns every element that a CSS selector finds now.
    pub async fn all(&self, css: &str) -> Vec<WebElement> {
        self.driver.find_all(By::Css(css)).await.unwrap()
    }

    /// Returns the visible text of every element that a CSS selector finds now.
    pub async fn texts(&self, css: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for element in self.all(css).await {
            texts.push(element.text().await.unwrap());
        }
        texts
    }

    /// Waits until the page's first heading holds `text`.
    pub async fn arrive(&self, text: &str) {
        let query = self.driver.query(By::Tag("h1")).ignore_errors(true);
        if let Err(error) = query.with_text(holds(text)).first().await {
            panic!("not at {text:?}: {error}\n{}", self.situation().await);
        }
    }

    /// Waits until the page confirms the last action in a text that contains `text`.
    pub async fn confirmed(&self, text: &str) {
        let query = self.driver.query(By::Css("[role='status']")).ignore_errors(true);
        if let Err(error) = query.with_text(holds(text)).first().await {
            panic!("no confirmation {text:?}: {error}\n{}", self.situation().await);
        }
    }

    /// The visible text of the whole page.
    pub async fn text(&self) -> String {
        self.see("body").await.text().await.unwrap()
    }

    /// Replaces the text of the field of this name.
    pub async fn fill(&self, name: &str, value: &str) {
        let field = self.see(&format!("[name='{name}']")).await;
        field.clear().await.unwrap();
        field.send_keys(value).await.unwrap();
    }

    /// Presses the button, or follows the link, with this text.
    pub async fn press(&self, text: &str) {
        let query = self
            .driver
            .query(By::Css("button, summary, a"))
            .ignore_errors(true);
        match query.with_text(holds(text)).first().await {
            Ok(button) => button.click().await.unwrap(),
            Err(error) => panic!("no {text:?} to press: {error}\n{}", self.situation().await),
        }
    }

    /// Returns the text of the field that a CSS selector finds.
    pub async fn value(&self, css: &str) -> String {
        self.see(css).await.value().await.unwrap().unwrap_or_default()
    }

    /// Clicks at the place of the first element of a CSS selector, even if another element covers it.
    pub async fn click(&self, css: &str) {
        let element = self.see(css).await;
        element.scroll_into_view().await.unwrap();
        self.stays(&element).await;
        let click = self.driver.action_chain().click_element(&element);
        click.perform().await.unwrap();
    }

    /// Waits until an element no longer moves: after scrolling, or a change of the window's size, a click could hit
    /// what was at its place before.
    async fn stays(&self, element: &WebElement) {
        let mut before = None;
        self.until("stays where it is", async |_| {
            let now = element.rect().await.ok().map(|rect| format!("{rect:?}"));
            let stays = now.is_some() && now == before;
            before = now;
            stays.then_some(())
        })
        .await;
    }

    /// Presses a key wherever the focus is.
    pub async fn key(&self, key: Key) {
        self.driver.action_chain().send_keys(key).perform().await.unwrap();
    }

    /// Types wherever the focus is.
    pub async fn type_text(&self, text: &str) {
        self.driver
            .action_chain()
            .send_keys(text)
            .perform()
            .await
            .unwrap();
    }

    /// Runs a script outside the page's content policy. Returns its result.
    pub async fn evaluate(&self, script: &str) -> serde_json::Value {
        let returned = self.driver.execute(script, Vec::new()).await.unwrap();
        returned.json().clone()
    }

    /// Waits until `look` finds something.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            if started.elapsed() > PATIENCE {
                panic!("never {what}\n{}", self.situation().await);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Runs a CDP command. Returns its result.
    pub async fn cdp(&self, method: &str, parameters: serde_json::Value) -> serde_json::Value {
        self.driver.cdp().send_raw(method, parameters).await.unwrap()
    }

    /// Takes the browser's complaints since the last call: blocked or missing resources, errors of scripts.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.driver.get_log("browser").await.unwrap();
        entries.into_iter().map(|entry| entry.message).collect()
    }

    /// Describes where the browser is, for a failing test.
    async fn situation(&self) -> String {
        let url = self.driver.current_url().await;
        let source = self.driver.source().await.unwrap_or_default();
        format!("at {:?}:\n{source}", url.map(String::from))
    }

    /// Returns the directory of all files that the browser writes.
    pub fn directory(&self) -> &Path {
        &self.chromedriver.directory
    }

    /// Ends the session.
    pub async fn quit(self) {
        self.driver.quit().await.unwrap();
    }
}

/// Matches texts that contain `text`, for an element query.
fn holds(text: &str) -> impl Fn(&str) -> bool + Clone + Send + Sync + 'static {
    let text = text.to_owned();
    move |shown| shown.contains(&text)
}

fn capabilities() -> Capabilities {
    let mut capabilities = DesiredCapabilities::chrome();
    for argument in [
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--lang=en-GB",
    ] {
        capabilities.add_arg(argument).unwrap();
    }
    // The certificate of a test's gateway is self-signed.
    capabilities.accept_insecure_certs(true).unwrap();
    capabilities
        .set_browser_log_level(LoggingPrefsLogLevel::Warning)
        .unwrap();
    capabilities.into()
}

/// A running chromedriver and the browser it started.
struct Chromedriver {
    directory: PathBuf,
    /// The end of the pipe that keeps both alive. Close-on-exec, so no other child has it.
    keep_alive: Option<ChildStdin>,
    watchdog: Child,
}

impl Chromedriver {
    /// Starts it and returns the port that it took. It chooses a port that is free for IPv6 and ends if another process has
    /// that port for IPv4: then another is started.
    fn start() -> (Self, u16) {
        let started = Instant::now();
        loop {
            let chromedriver = Self::spawn();
            if let Some(port) = chromedriver.port() {
                return (chromedriver, port);
            }
            assert!(started.elapsed() < PATIENCE, "chromedriver finds no port");
        }
    }

    fn spawn() -> Self {
        // The watchdog removes it.
        let directory = tempfile::Builder::new().prefix("accord-browser-").tempdir();
        let directory = directory.unwrap().keep();
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&directory)
            .args(["chromedriver", "--port=0"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not in the terminal's group: who interrupts the tests must not kill their cleaner.
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            directory,
            keep_alive: watchdog.stdin.take(),
            watchdog,
        }
    }

    /// The port that it says it took, or `None` if it was taken already.
    fn port(&self) -> Option<u16> {
        let log = self.directory.join("log");
        let started = Instant::now();
        loop {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let port = log.lines().find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').parse().ok()
            });
            if port.is_some() || log.contains("port not available") {
                return port;
            }
            assert!(started.elapsed() < PATIENCE, "chromedriver does not start: {log}");
            std::thread::sleep(INTERVAL);
        }
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        drop(self.keep_alive.take());
        let _ = self.watchdog.wait();
    }
}

//! A tab of a real browser that shows one page and hears what goes wrong.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use headless_chrome::browser::default_executable;
use headless_chrome::browser::tab::Tab;
use headless_chrome::protocol::cdp::types::{Event, Method};
use headless_chrome::protocol::cdp::{Emulation, Log, Network, Page, Runtime};
use headless_chrome::{Browser, LaunchOptions};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::skip::{Missing, or_skip};

/// A browser with one tab.
pub struct OpenPage {
    tab: Arc<Tab>,
    /// The page's address, without a fragment.
    url: String,
    /// Requests to elsewhere and errors on the console.
    heard: Arc<Mutex<Vec<String>>>,
    /// Ends with the test.
    _browser: Browser,
}

/// For a page to load, or to do what was asked of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The colour schemes of readers.
pub const SCHEMES: [&str; 2] = ["light", "dark"];

impl OpenPage {
    /// Shows the file; `None`, and the test is skipped, where there is no browser.
    pub fn open(path: &Path) -> Option<Self> {
        let program: PathBuf = or_skip(Missing::Browser, default_executable())?;
        // The sandbox refuses to work for root, which is what tests run as in containers; the page is our own.
        let args = vec![OsStr::new("--hide-scrollbars")];
        let options = LaunchOptions { path: Some(program), sandbox: false, args, ..Default::default() };
        let browser = Browser::new(options).unwrap();
        let tab = browser.new_tab().unwrap();
        let page = OpenPage {
            url: format!("file://{}", path.display()),
            heard: listen(&tab, format!("file://{}", path.display())),
            tab,
            _browser: browser,
        };
        page.call::<Network::Enable>(json!({}));
        page.tab.enable_log().unwrap();
        page.tab.enable_runtime().unwrap();
        page.goto("");
        Some(page)
    }

    /// A command of the browser's protocol.
    pub fn call<C: Method + DeserializeOwned + serde::Serialize + std::fmt::Debug>(
        &self,
        parameters: Value,
    ) -> C::ReturnObject {
        self.tab.call_method(serde_json::from_value::<C>(parameters).unwrap()).unwrap()
    }

    /// Loads the page anew, at a fragment like `#table`.
    pub fn goto(&self, fragment: &str) {
        // By way of another page: at another fragment alone the same one would not be loaded.
        for url in ["about:blank", &format!("{}{fragment}", self.url)] {
            self.call::<Page::Navigate>(json!({ "url": url }));
            let loaded = format!("location.href == {} && document.readyState == 'complete'", json!(url));
            assert!(self.becomes_true(&loaded), "{url} does not load");
        }
    }

    /// The value of an expression, which may be a promise; `None` while one page makes way for the next.
    fn evaluate(&self, expression: &str) -> Option<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let found = self.tab.call_method(serde_json::from_value::<Runtime::Evaluate>(parameters).unwrap()).ok()?;
        assert!(found.exception_details.is_none(), "{expression}: {:?}", found.exception_details);
        Some(found.result.value.unwrap_or(Value::Null))
    }

    /// The value of an expression, which may be a promise.
    pub fn value(&self, expression: &str) -> Value {
        self.evaluate(expression).unwrap_or_else(|| panic!("no value: {expression}"))
    }

    /// The texts that an expression lists.
    pub fn texts(&self, expression: &str) -> Vec<String> {
        serde_json::from_value(self.value(expression)).unwrap()
    }

    /// Waits for an expression to become true, which follows a click or a key after a moment.
    pub fn becomes_true(&self, expression: &str) -> bool {
        let begun = Instant::now();
        while self.evaluate(expression) != Some(json!(true)) {
            if begun.elapsed() > PATIENCE {
                return false;
            }
            sleep(Duration::from_millis(20));
        }
        true
    }

    pub fn click(&self, selector: &str) {
        self.tab.find_element(selector).unwrap().click().unwrap();
    }

    pub fn press(&self, key: &str) {
        self.tab.press_key(key).unwrap();
    }

    /// As a reader with a window of this width and this colour scheme sees it; `media` is `screen` or `print`.
    pub fn show(&self, width: u32, scheme: &str, media: &str) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1.0, "mobile": false });
        self.call::<Emulation::SetDeviceMetricsOverride>(metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call::<Emulation::SetEmulatedMedia>(json!({ "media": media, "features": features }));
    }

    /// A PNG file of the page, or of the element that is the target of its fragment.
    pub fn picture(&self) -> Vec<u8> {
        let clip = self.value(
            "(() => { const target = document.querySelector('.cell:target') ?? document.documentElement;
                const box = target.getBoundingClientRect();
                return { x: 0, y: box.top + scrollY, width: innerWidth, height: box.height, scale: 1 }; })()",
        );
        let parameters = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        decoded(&self.call::<Page::CaptureScreenshot>(parameters).data)
    }

    /// The page on paper.
    pub fn pdf(&self) -> Vec<u8> {
        decoded(&self.call::<Page::PrintToPDF>(json!({})).data)
    }

    /// What has gone wrong so far.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// Collects requests that leave `url`, and errors.
fn listen(tab: &Tab, url: String) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = heard.clone();
    let hear = move |event: &Event| {
        let problem = match event {
            Event::NetworkRequestWillBeSent(event) => {
                let to = &event.params.request.url;
                let inside = to.starts_with(&url) || to.starts_with("data:") || to == "about:blank";
                (!inside).then(|| format!("a request to {to}"))
            }
            Event::LogEntryAdded(event) => {
                let entry = &event.params.entry;
                (entry.level == Log::LogEntryLevel::Error).then(|| format!("an error: {}", entry.text))
            }
            Event::RuntimeConsoleAPICalled(event) => Some(format!("on the console: {:?}", event.params.args)),
            Event::RuntimeExceptionThrown(event) => Some(format!("{:?}", event.params.exception_details)),
            _ => None,
        };
        listener.lock().unwrap().extend(problem);
    };
    tab.add_event_listener(Arc::new(hear)).unwrap();
    heard
}

fn decoded(base64: &str) -> Vec<u8> {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.decode(base64).unwrap()
}

//! Shows a file in the user's browser.

use std::path::Path;

use super::console;

/// Opens `path`. If that fails, a note says why: the file is there all the same.
pub fn open(path: &Path) {
    if let Err(why) = try_open(path) {
        console::note(&format!("--open: {why}; open {} in a browser yourself", path.display()));
    }
}

fn try_open(path: &Path) -> Result<(), String> {
    // Without one, the usual programs would start a browser for the terminal and take it over.
    let needs_display = cfg!(all(unix, not(target_os = "macos")));
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if needs_display && !has_display {
        return Err("there is no display".to_string());
    }
    open::that_detached(path).map_err(|e| format!("no browser could be started ({e})"))
}

// SPDX-License-Identifier: Apache-2.0
// Runs before the page is drawn, so that the chosen theme is there from the first picture on.
try {
    const theme = JSON.parse(localStorage.getItem("myelin.theme"));
    if (theme === "light" || theme === "dark") {
        document.documentElement.dataset.theme = theme;
    }
} catch {
    // no storage, or no theme in it: the system's
}

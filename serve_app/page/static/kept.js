// What this browser remembers: choices, never chats. A browser may refuse to remember.

export function kept(name) {
  try {
    return JSON.parse(localStorage.getItem(`moss.${name}`));
  } catch {
    return null;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(`moss.${name}`, JSON.stringify(value));
  } catch {
    // It holds until the page is closed.
  }
}

// What a user is told of an error.

import { ApiError } from "./api.js";
import { t } from "./i18n.js";

const KNOWN = {
  context_length_exceeded: "error_too_long",
  deadline_exceeded: "error_slow",
  draining: "error_away",
  engine_error: "error_engine",
  overloaded: "error_overloaded",
  queue_full: "error_overloaded",
  rate_limit_exceeded: "error_rate",
  session_busy: "error_busy",
  idempotency_in_progress: "error_busy",
  store_unavailable: "error_away",
  turn_not_stored: "error_away",
};

/** No server, or one that will be there again: worth asking again. */
export function isOutage(error) {
  return error instanceof ApiError ? [502, 503, 504].includes(error.status) : error instanceof TypeError;
}

/** In the page's language where the page knows the error, else the server's words. */
export function errorText(error) {
  if (error instanceof TypeError) return t("error_away");
  return error.code in KNOWN ? t(KNOWN[error.code]) : error.message;
}

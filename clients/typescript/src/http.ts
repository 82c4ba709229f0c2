// Every request of the package, streams too: addresses, the token, and errors in one form.

import { errorOf, ours, TidingsError } from "./problem.js";

/** What a token provider is told. */
export interface TokenRequest {
  /** The last token was answered 401: get a new one, do not repeat a cached one. */
  refresh: boolean;
}

/** Where the server is and how to speak to it. */
export interface HttpOptions {
  /** Address of the server, with a path if it is mounted under one; by default the page's origin. */
  url?: string;
  /** Called before every request, and again after a 401. Goes out as `Authorization: Bearer …`. */
  token?: (request: TokenRequest) => string | undefined | Promise<string | undefined>;
  /** In place of the global `fetch`, for example one that sends cookies to another origin. */
  fetch?: typeof fetch;
}

/** One request. */
export interface Request {
  method?: string;
  query?: Record<string, string | number | readonly string[] | undefined>;
  headers?: Record<string, string | undefined>;
  body?: unknown;
  signal?: AbortSignal | undefined;
}

/** Requests to one server. */
export class Http {
  readonly #options: HttpOptions;
  readonly #server: string;
  #read = false; // an answer, ever

  constructor(options: HttpOptions) {
    this.#options = options;
    const page = globalThis.location?.href;
    this.#server = new URL(options.url ?? "/", page).href.replace(/\/+$/, "");
  }

  /** The absolute address of a route of which some segments are names. */
  address(...segments: string[]): string {
    return [`${this.#server}/api/notifications`, ...segments.map(encodeURIComponent)].join("/");
  }

  /** The answer, if it is one of the 2xx; whatever else there is, is thrown. */
  async send(address: string, request: Request = {}): Promise<Response> {
    const { token, fetch: send = globalThis.fetch } = this.#options;
    const { method = "GET", body, signal = null } = request;
    const url = address + queryOf(request.query ?? {});
    for (let refresh = false; ; refresh = true) {
      const bearer = await token?.({ refresh });
      const headers = new Headers(body === undefined ? {} : { "content-type": "application/json" });
      for (const [name, value] of Object.entries(request.headers ?? {})) if (value) headers.set(name, value);
      if (bearer) headers.set("authorization", `Bearer ${bearer}`);
      const response = await send(url, {
        method,
        headers,
        cache: "no-store",
        body: body === undefined ? null : JSON.stringify(body),
        signal,
      }).catch(async (error: unknown) => {
        throw signal?.aborted ? error : await this.#unreachable(error);
      });
      this.#read = true;
      if (response.ok) return response;
      const error = await errorOf(response);
      if (response.status !== 401 || !token || refresh) throw error;
    }
  }

  async #unreachable(error: unknown): Promise<TidingsError> {
    return new TidingsError(
      (await this.#refuses())
        ? ours("foreign-page", `${this.#server} answers, but not to pages of ${location.origin}: add it to TIDINGS_CORS_ORIGINS there.`)
        : ours("unreachable", `${this.#server} cannot be reached: ${String(error)}`),
    );
  }

  /**
   * Browsers do not tell a page whether a server is down or only refuses its origin. It refuses if it
   * answers what nobody can read, and then not what could be read. One that was read before does not:
   * that request was cut, or a gateway's page came in its place.
   */
  async #refuses(): Promise<boolean> {
    const page = globalThis.location?.origin;
    if (this.#read || page === undefined || page === new URL(this.#server).origin) return false;
    const answers = (mode: RequestMode) =>
      fetch(`${this.#server}/livez`, { mode, cache: "no-store" }).then(
        () => true,
        () => false,
      );
    if (!(await answers("no-cors"))) return false;
    this.#read = await answers("cors");
    return !this.#read;
  }
}

function queryOf(query: NonNullable<Request["query"]>): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && String(value) !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}

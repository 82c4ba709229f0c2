// One class for whatever a request can end in. The server's problems pass through as they are; what
// never reached Tidings gets a type of ours, so that a program looks at `slug` alone.

/** `application/problem+json`, RFC 9457. */
export interface Problem {
  /** `urn:tidings:problem:…` from the server, `urn:tidings:client:…` from this package. */
  type: string;
  /** A few words, the same for every problem of this type. */
  title: string;
  /** The HTTP status, 0 when there was no answer. */
  status: number;
  /** The thing and the remedy. */
  detail?: string;
  /** Under which the server's log tells more. */
  request_id?: string;
  /** Whatever else the problem says. */
  [member: string]: unknown;
}

const LONGEST = 86_400; // s that are waited for; a timer for a month would fire at once

/** A request failed; `problem` says why. */
export class TidingsError extends Error {
  override readonly name = "TidingsError";

  constructor(
    /** What the server answered, or what the package says in its stead. */
    readonly problem: Problem,
    /** From `Retry-After`: how long to wait before trying again. */
    readonly retryAfterSeconds?: number,
  ) {
    super(problem.detail ?? problem.title);
  }

  /** The HTTP status, 0 when there was no answer. */
  get status(): number {
    return this.problem.status;
  }

  /** The end of the problem's type, such as `invalid-user`, `outcome-unknown` or `unreachable`. */
  get slug(): string {
    return this.problem.type.replace(/^.*:/, "");
  }

  /** Whether trying again is no use, because the server itself asks for a change. */
  get final(): boolean {
    return isFinal(this.problem);
  }
}

/** The error of an answer that is none of the 2xx. */
export async function errorOf(response: Response): Promise<TidingsError> {
  const text = await response.text().catch(() => "");
  const retryAfter = Math.min(Number(response.headers.get("retry-after") ?? NaN), LONGEST);
  return new TidingsError(
    asProblem(text) ?? ours("foreign-answer", `${response.url} answered ${response.status}, and not as Tidings does.`, response.status),
    Number.isNaN(retryAfter) ? undefined : retryAfter,
  );
}

/** A problem that this package states. */
export function ours(slug: string, detail: string, status = 0): Problem {
  return { type: `urn:tidings:client:${slug}`, title: slug, status, detail };
}

/** What a thrown thing says, in a form that can be sent to another tab. */
export function problemOf(error: unknown): Problem {
  return error instanceof TidingsError ? error.problem : ours("failed", String(error));
}

/**
 * Whether trying again is no use: the server itself asks for a change. A 4xx that is not Tidings'
 * own comes from something in between, for example during a deployment, and passes.
 */
export function isFinal({ type, status }: Problem): boolean {
  const clients = status >= 400 && status < 500 && status !== 408 && status !== 429;
  return type.startsWith("urn:tidings:problem:") && (clients || status === 501);
}

function asProblem(text: string): Problem | undefined {
  try {
    const value = JSON.parse(text);
    return typeof value?.type === "string" && typeof value.status === "number" ? value : undefined;
  } catch {
    return undefined;
  }
}

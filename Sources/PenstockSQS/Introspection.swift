// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// What the server tells about itself, under a path that is no queue's: an account is digits.
///
/// | Path | Who | Answer |
/// | --- | --- | --- |
/// | `/penstock/health/live` | everybody | 200 |
/// | `/penstock/health/ready` | everybody | 200 while the store takes requests, else 503 |
/// | `/penstock/metrics` | the trusted | the Prometheus text format |
/// | `/penstock/queues/{account}/{name}/peek` | the trusted | messages, not received by it |
struct Introspection: Sendable {
  static let prefix = "/penstock/"
  static let live = "/penstock/health/live"
  static let ready = "/penstock/health/ready"
  /// Bytes of bodies and attributes in one look at a queue.
  static let maximumPeekBytes = 8 << 20

  let store: Store
  let configuration: SQSConfiguration

  /// Answers a GET that is under the prefix; false for all others.
  ///
  /// - Parameter isAllowed: whether a caller may see what the store holds.
  static func answer(
    _ request: SQSRequest, _ store: Store, _ configuration: SQSConfiguration,
    isAllowed: (SQSRequest) -> Bool,
    _ completion: @escaping @Sendable (SQSReply) -> Void
  ) -> Bool {
    guard request.method == "GET", request.target.hasPrefix(prefix) else { return false }
    let introspection = Introspection(store: store, configuration: configuration)
    let (path, query) = parts(request.target)
    introspection.answer(path, query, isAllowed(request)) { response in
      completion(SQSReply { response })
    }
    return true
  }

  /// Whether a caller may see more than health: those on this machine, unless they come through a
  /// proxy.
  static func isAllowed(_ request: SQSRequest) -> Bool {
    guard let address = request.remoteAddress, isLoopback(address) else { return false }
    return request.headers.first("x-forwarded-for") == nil
      && request.headers.first("forwarded") == nil && !isOfAWebPage(request)
      && request.headers.first("host").map { isLocal(authority: $0) } ?? true
  }

  /// Whether a browser sent it for a page of another origin: such a page can reach this machine,
  /// and its user's requests are not the page's.
  static func isOfAWebPage(_ request: SQSRequest) -> Bool {
    if request.headers.first("origin") != nil { return true }
    guard let site = request.headers.first("sec-fetch-site") else { return false }
    return site != "none" && site != "same-origin"
  }

  /// Whether a Host header names this machine by a name that nobody else can give it.
  private static func isLocal(authority: String) -> Bool {
    if authority.hasPrefix("[") { return authority.hasPrefix("[::1]") }
    let host = authority.prefix { $0 != ":" }
    return host.lowercased() == "localhost"
      || isLoopback(String(host))
        && host.utf8.allSatisfy { $0 == UInt8(ascii: ".") || $0 &- UInt8(ascii: "0") < 10 }
  }

  /// True for addresses that only this machine has. They come from the socket, so they are
  /// addresses.
  static func isLoopback(_ address: String) -> Bool {
    address.hasPrefix("127.") || address == "::1"
  }

  /// The answer before there is a store; nil for paths that are none of ours.
  static func opening(
    _ request: SQSRequest, _ progress: (segments: Int, total: Int)
  ) -> SQSResponse? {
    guard request.target.hasPrefix(prefix) else { return nil }
    let path = parts(request.target).path
    guard path != live else { return state("live", status: 200) }
    let isAllowed = isAllowed(request)
    return state("opening", status: 503) { writer in
      guard isAllowed else { return }
      writer.key("segmentsRead")
      writer.number(progress.segments)
      writer.key("segmentsTotal")
      writer.number(progress.total)
    }
  }

  private func answer(
    _ path: Substring, _ query: Substring, _ isAllowed: Bool,
    _ completion: @escaping @Sendable (SQSResponse) -> Void
  ) {
    switch path {
    case Self.live[...]: return completion(Self.state("live", status: 200))
    case Self.ready[...]: return answerReady(isAllowed, completion)
    default: break
    }
    guard isAllowed else {
      return completion(
        Self.failure(
          403,
          "Only callers on the server's machine and its account's root see this."
        )
      )
    }
    if path == Metrics.path { return completion(Metrics.response(store)) }
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 6, parts[2] == "queues", parts[5] == "peek" else {
      return completion(Self.failure(404, "There is nothing here."))
    }
    let (account, name) = (String(parts[3]), String(parts[4]))
    let storeName = configuration.storeName(of: name, in: account)
    guard AccountID.isValid(account), !StoreName.isForeign(name),
      let queue = store.lookup(storeName)
    else {
      return completion(Self.failure(404, "There is no such queue."))
    }
    guard let look = Look(query) else {
      return completion(
        Self.failure(400, "limit must be from 1 to 100, and state must be next or any."))
    }
    peek(queue, look, completion)
  }

  // MARK: Health

  private func answerReady(
    _ isAllowed: Bool, _ completion: @escaping @Sendable (SQSResponse) -> Void
  ) {
    if configuration.isDraining() {
      return completion(Self.state("draining", status: 503))
    }
    guard store.isClosed else {
      let recovery = store.recovery
      let response = Self.state("ready", status: 200) { writer in
        guard isAllowed else { return }
        writer.member("durability", store.durability.rawValue)
        writer.member("recovery", recovery.end.rawValue)
        writer.member("encryption", store.cipher == nil ? "none" : "key ring")
        writer.key("segmentsRecovered")
        writer.number(recovery.segments)
      }
      return completion(response)
    }
    store.settle { result in
      guard case .failure(let error) = result, error.code == .storeFailed else {
        return completion(Self.state("closed", status: 503))
      }
      completion(
        Self.state("failed", status: 503) { writer in
          if isAllowed { writer.member("reason", error.message) }
        })
    }
  }

  // MARK: A look at a queue

  /// What a peek asks for.
  private struct Look {
    var limit = 10
    /// Messages in whatever state, not only what the next receives would get.
    var isOfAll = false

    init?(_ query: Substring) {
      for member in query.split(separator: "&") {
        let parts = member.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        switch (parts[0], parts[1]) {
        case ("limit", let text):
          guard let limit = Int(text), (1...100).contains(limit) else { return nil }
          self.limit = limit
        case ("state", "any"): isOfAll = true
        case ("state", "next"): isOfAll = false
        default: return nil
        }
      }
    }
  }

  private func peek(
    _ queue: QueueListing, _ look: Look,
    _ completion: @escaping @Sendable (SQSResponse) -> Void
  ) {
    if look.isOfAll {
      walk(queue.id, WalkCursor(), look.limit, [], completion)
    } else {
      store.peek(queue.id, limit: look.limit) { result in
        completion(Self.answer(result))
      }
    }
  }

  private func walk(
    _ queue: QueueID, _ cursor: WalkCursor, _ limit: Int, _ before: [SeenMessage],
    _ completion: @escaping @Sendable (SQSResponse) -> Void
  ) {
    store.walk(queue, from: cursor) { result in
      switch result {
      case .failure(let error): completion(Self.answer(.failure(error)))
      case .success(let (messages, next)):
        let seen = before + messages.prefix(limit - before.count)
        if let next, seen.count < limit {
          walk(queue, next, limit, seen, completion)
        } else {
          completion(Self.answer(.success(seen)))
        }
      }
    }
  }

  private static func answer(_ result: Result<[SeenMessage], PenstockError>) -> SQSResponse {
    switch result {
    case .failure(let error):
      return failure(error.code == .queueNotFound ? 404 : 503, error.message)
    case .success(let messages):
      var writer = JSONWriter()
      writer.beginArray()
      for message in messages where writer.bytes.count < maximumPeekBytes {
        write(message, &writer)
      }
      writer.endArray()
      return json(200, writer)
    }
  }

  private static func write(_ message: SeenMessage, _ writer: inout JSONWriter) {
    writer.beginObject()
    writer.member("id", message.id.description)
    switch message.state {
    case .visible: writer.member("state", "visible")
    case .delayed(let until):
      writer.member("state", "delayed")
      write("until", until, &writer)
    case .leased(let until):
      writer.member("state", "leased")
      write("until", until, &writer)
    }
    write("sent", message.sentAt, &writer)
    writer.key("receiveCount")
    writer.number(message.receiveCount)
    let content = message.content
    writer.member("groupId", ifPresent: content.groupID)
    writer.member("deduplicationId", ifPresent: content.deduplicationID)
    writer.member("senderId", ifPresent: content.senderID)
    writer.member("traceHeader", ifPresent: content.traceHeader)
    writer.key("body")
    writer.string(content.body)
    writer.key("attributes")
    writer.beginObject()
    for attribute in content.attributes {
      writer.key(attribute.name)
      writer.beginObject()
      writer.member("type", attribute.type)
      switch attribute.value {
      case .string(let text): writer.member("string", text)
      case .binary(let bytes): writer.member("binary", Base64.encode(bytes))
      }
      writer.endObject()
    }
    writer.endObject()
    writer.endObject()
  }

  private static func write(_ name: String, _ time: Timestamp, _ writer: inout JSONWriter) {
    writer.key(name)
    writer.number(Int(time.milliseconds))
  }

  // MARK: Answers

  private static func parts(_ target: String) -> (path: Substring, query: Substring) {
    guard let mark = target.firstIndex(of: "?") else { return (target[...], "") }
    return (target[..<mark], target[target.index(after: mark)...])
  }

  private static func state(
    _ state: String, status: Int, _ more: (inout JSONWriter) -> Void = { _ in }
  ) -> SQSResponse {
    var writer = JSONWriter()
    writer.beginObject()
    writer.member("state", state)
    more(&writer)
    writer.endObject()
    return json(status, writer)
  }

  private static func failure(_ status: Int, _ message: String) -> SQSResponse {
    var writer = JSONWriter()
    writer.beginObject()
    writer.member("message", message)
    writer.endObject()
    return json(status, writer)
  }

  private static func json(_ status: Int, _ writer: JSONWriter) -> SQSResponse {
    SQSResponse(
      status: status, headers: [("Content-Type", "application/json")], body: writer.bytes)
  }
}

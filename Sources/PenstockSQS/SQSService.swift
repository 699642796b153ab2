// SPDX-License-Identifier: Apache-2.0
public import Penstock

/// The SQS API over a store: requests in, responses out, no sockets.
///
/// Invariants
/// - I1: the completion of `handle` runs exactly once.
/// - I2: no request, whatever its bytes, does more than fail itself.
public final class SQSService: Sendable {
  let store: Store
  let configuration: SQSConfiguration
  let purges = Cooldowns()
  let deletions = Cooldowns()
  let policies = PolicyCache()
  private let requestIDs = RequestIDs()

  private let credentials: CredentialStore?
  /// Who everybody is when there are no credentials.
  private let anyone: Caller

  /// Serves an open store, which the caller closes afterwards.
  ///
  /// - Parameter credentials: who may sign requests; nil when requests are not looked at for that,
  ///   and whoever sends one is the owner.
  public init(
    store: Store, configuration: SQSConfiguration = SQSConfiguration(),
    credentials: CredentialStore? = nil
  ) {
    self.store = store
    self.configuration = configuration
    self.credentials = credentials
    anyone = Caller(
      principal: .root(of: configuration.accountID, partition: configuration.partition),
      account: configuration.accountID)
  }

  /// Carries out one request.
  ///
  /// - Parameter completion: runs once, on any thread, perhaps before this returns, and must not
  ///   block.
  /// - Returns: a name for `cancel` when the request is a receive, which may wait.
  public func handle(
    _ request: SQSRequest, completion: @escaping @Sendable (SQSReply) -> Void
  ) -> ReceiveTicket? {
    let requestID = requestIDs.next()
    guard request.method == "POST" || request.method == "GET" else {
      completion(SQSReply { Self.methodNotAllowed(requestID) })
      return nil
    }
    if Introspection.answer(request, store, configuration, isAllowed: isTrusted, completion) {
      return nil
    }
    let wire = WireProtocol(request)
    var call: Call?
    do throws(SQSError) {
      let caller = try caller(of: request)
      guard let (action, fields) = try read(request, wire) else {
        completion(SQSReply { Self.noAction(requestID) })
        return nil
      }
      let made = Call(
        service: self, action: action, wire: wire, caller: caller, headers: request.headers,
        isSecure: request.isSecure, requestID: requestID, completion: completion)
      call = made
      return try made.run(fields)
    } catch {
      if let call, error.kind == .queueDoesNotExist {
        // That a queue is not there may be news that could still vanish.
        call.settle { call.fail(error) }
      } else {
        let response = SQSResponse.failure(error, in: wire, requestID: requestID)
        completion(SQSReply { response })
      }
      return nil
    }
  }

  /// Ends a receive that waits: its completion runs with no messages. Does nothing to one that is
  /// over.
  public func cancel(_ ticket: ReceiveTicket) { store.cancel(ticket) }

  /// The answer to a request whose body is over the limit of the host.
  public func tooLarge(_ request: SQSRequest, limit: Int) -> SQSResponse {
    refusal(
      SQSError(.requestTooLarge, "The request body is larger than \(limit) bytes."), request)
  }

  /// The answer to a request that did not arrive in time.
  public func tooSlow(_ request: SQSRequest) -> SQSResponse {
    refusal(SQSError(.requestTimeout, "The request did not arrive in time."), request)
  }

  /// The answer when the host has no room for another request.
  public func overloaded(_ request: SQSRequest) -> SQSResponse {
    refusal(
      SQSError(.serviceUnavailable, "The server holds too many requests. Try again."), request)
  }

  private func refusal(_ error: SQSError, _ request: SQSRequest) -> SQSResponse {
    .failure(error, in: WireProtocol(request), requestID: requestIDs.next())
  }

  private static func methodNotAllowed(_ requestID: String) -> SQSResponse {
    SQSResponse(
      status: 405, headers: [("Allow", "GET, POST"), ("x-amzn-RequestId", requestID)], body: [])
  }

  /// What the real service says to a form without an action; some clients probe with it.
  private static func noAction(_ requestID: String) -> SQSResponse {
    .xml(404, Array("<UnknownOperationException/>".utf8), requestID: requestID)
  }

  /// Action and parameters; nil for a form without an action.
  private func read(
    _ request: SQSRequest, _ wire: WireProtocol
  ) throws(SQSError) -> (Action, Fields)? {
    guard wire == .query else {
      return (try Self.action(request), try Self.fields(request.body))
    }
    let form = try Form(request)
    guard let name = form["Action"], !name.isEmpty else { return nil }
    let action = try Action(named: name)
    let path = configuration.withoutPublicPath(path: request.target.prefix { $0 != "?" })
    let queue = QueueAddress(parsing: path).flatMap { $0.account == nil ? nil : path }
    if queue != nil, request.method == "GET", action == .createQueue || action == .listQueues {
      throw SQSError(
        .unknownOperation, "The action \(name) is not valid for this endpoint.")
    }
    return (action, try Fields(form.document(for: action, queue: queue).root))
  }

  private static func action(_ request: SQSRequest) throws(SQSError) -> Action {
    guard let target = request.headers.first("x-amz-target") else {
      throw SQSError(.unknownOperation, "The request has no X-Amz-Target header.")
    }
    let prefix = "AmazonSQS."
    guard target.hasPrefix(prefix) else {
      throw SQSError(
        .unknownOperation,
        "The target \(SQSError.echo(target)) is not valid for this endpoint.")
    }
    return try Action(named: target.dropFirst(prefix.count))
  }

  /// Parses a body. An empty one counts as `{}`.
  private static func fields(_ body: [UInt8]) throws(SQSError) -> Fields {
    let document: JSONDocument
    do throws(JSONError) {
      document = try JSONParser.parse(body.isEmpty ? Array("{}".utf8) : body)
    } catch {
      throw SQSError(
        .serialization, "The body is not valid JSON: \(error.reason) at byte \(error.offset).")
    }
    return try Fields(document.root)
  }

  /// Whether a caller may see what the store holds beside the API: those on this machine, and those
  /// who sign as the root of the server's own account, without a policy that limits them.
  private func isTrusted(_ request: SQSRequest) -> Bool {
    if Introspection.isAllowed(request) { return true }
    guard let credentials else { return false }
    do throws(SQSError) {
      let credential = try SignatureV4.authenticate(
        request, with: credentials, region: configuration.region,
        nowSeconds: store.now.milliseconds / 1000)
      return credential?.principal.kind == .root && credential?.policy == nil
        && credential?.account == configuration.accountID
    } catch { return false }
  }

  private func caller(of request: SQSRequest) throws(SQSError) -> Caller {
    guard let credentials else {
      if Introspection.isOfAWebPage(request) {
        throw SQSError(
          .accessDenied,
          "A web page sent this request, and without credentials the server takes none of those.")
      }
      return anyone
    }
    let now = store.now.milliseconds
    let credential = try SignatureV4.authenticate(
      request, with: credentials, region: configuration.region, nowSeconds: now / 1000)
    var context = AccessContext(
      time: now, sourceIP: request.remoteAddress, isSecure: request.isSecure ? true : nil)
    context.userAgent = request.headers.first("user-agent")
    let principal = credential?.principal ?? .anonymous
    return Caller(
      principal: principal,
      account: credential == nil ? configuration.accountID : principal.account,
      access: .init(identityPolicy: credential?.policy, context: context))
  }

  /// True for a host with or without a port. What else a Host header may hold must not get into
  /// URLs that others read.
  static func isAuthority(_ text: String) -> Bool {
    (1...255).contains(text.utf8.count)
      && text.utf8.allSatisfy { byte in
        Alphabet.isNameByte(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: ":")
          || byte == UInt8(ascii: "[") || byte == UInt8(ascii: "]")
      }
  }
}

/// One request on its way. Every path ends in exactly one of `finish` and `fail` (I1).
struct Call: Sendable {
  let service: SQSService
  let action: Action
  let wire: WireProtocol
  let caller: Caller
  let headers: any SQSHeaders
  let isSecure: Bool
  let requestID: String
  let completion: @Sendable (SQSReply) -> Void

  /// Scheme and authority for queue URLs.
  var baseURL: String { configuration.baseURL(headers, isSecure: isSecure) }

  /// The X-Amzn-Trace-Id header.
  var traceHeader: String? {
    headers.first("x-amzn-trace-id").flatMap {
      (1...SystemAttribute.maximumTraceHeader).contains($0.utf8.count) ? $0 : nil
    }
  }

  var store: Store { service.store }
  var configuration: SQSConfiguration { service.configuration }

  /// Throws only before the store has taken over the completion.
  func run(_ fields: Fields) throws(SQSError) -> ReceiveTicket? {
    switch action {
    case .createQueue: try createQueue(fields)
    case .getQueueURL: try getQueueURL(fields)
    case .listQueues: try listQueues(fields)
    case .deleteQueue: try deleteQueue(fields)
    case .getQueueAttributes: try getQueueAttributes(fields)
    case .setQueueAttributes: try setQueueAttributes(fields)
    case .purgeQueue: try purgeQueue(fields)
    case .sendMessage: try sendMessage(fields)
    case .sendMessageBatch: try sendMessageBatch(fields)
    case .receiveMessage: return try receiveMessage(fields)
    case .deleteMessage: try deleteMessage(fields)
    case .deleteMessageBatch: try deleteMessageBatch(fields)
    case .changeMessageVisibility: try changeMessageVisibility(fields)
    case .changeMessageVisibilityBatch: try changeMessageVisibilityBatch(fields)
    case .listDeadLetterSourceQueues: try listDeadLetterSourceQueues(fields)
    case .startMessageMoveTask: try startMessageMoveTask(fields)
    case .listMessageMoveTasks: try listMessageMoveTasks(fields)
    case .cancelMessageMoveTask: try cancelMessageMoveTask(fields)
    case .addPermission: try addPermission(fields)
    case .removePermission: try removePermission(fields)
    case .tagQueue: try tagQueue(fields)
    case .untagQueue: try untagQueue(fields)
    case .listQueueTags: try listQueueTags(fields)
    }
    return nil
  }

  /// Answers with what `write` writes, on the thread that writes the response.
  func finish(_ write: @escaping @Sendable (inout ReplyWriter) -> Void) {
    let (wire, action, requestID) = (wire, action, requestID)
    completion(
      SQSReply { ReplyWriter.response(wire, action, requestID: requestID, write) })
  }

  /// Answers success of an action without output.
  func finish() {
    let (wire, action, requestID) = (wire, action, requestID)
    completion(SQSReply { ReplyWriter.response(wire, action, requestID: requestID, nil) })
  }

  func fail(_ error: SQSError) {
    let (wire, requestID) = (wire, requestID)
    completion(SQSReply { .failure(error, in: wire, requestID: requestID) })
  }

  /// Answers what a store call without output came to.
  func finish<Value>(_ result: Result<Value, PenstockError>) {
    switch result {
    case .success: finish()
    case .failure(let error): fail(SQSError(error))
    }
  }

  /// Goes on once everything that a look at the store has shown is durable.
  func settle(_ body: @escaping @Sendable () -> Void) {
    store.settle { result in
      switch result {
      case .success: body()
      case .failure(let error): fail(SQSError(error))
      }
    }
  }

  /// The queue that `QueueUrl` names. Absent, empty and unreadable ones do not exist, unless the
  /// protocol has the path for it.
  func queue(
    _ url: String?, tags: [(name: String, value: String)] = [], tagKeys: [String] = []
  ) throws(SQSError) -> QueueListing {
    if url == nil, wire == .query {
      throw SQSError(
        .invalidAddress, "The address \(baseURL)/ is not valid for this endpoint.")
    }
    guard let url, let address = QueueAddress(parsing: configuration.withoutPublicPath(url)) else {
      throw .queueDoesNotExist
    }
    return try queue(
      address.name, in: address.account ?? caller.account, tags: tags, tagKeys: tagKeys)
  }

  /// A queue of exactly this name. The store takes texts that look alike, such as two forms of an
  /// accent, for the same; permissions do not.
  func find(_ name: String, in account: String) -> QueueListing? {
    guard AccountID.isValid(account), !StoreName.isForeign(name) else { return nil }
    let storeName = configuration.storeName(of: name, in: account)
    guard let queue = store.lookup(storeName), queue.name.utf8.elementsEqual(storeName.utf8)
    else { return nil }
    return queue
  }

  /// A queue with which the caller may do what this action does. Strangers are not told whether
  /// there is one.
  func queue(
    _ name: String, in account: String, tags: [(name: String, value: String)] = [],
    tagKeys: [String] = []
  ) throws(SQSError) -> QueueListing {
    let queue = find(name, in: account)
    if queue == nil, caller.owns(account) { throw .queueDoesNotExist }
    try authorise(
      AccessRequest.actionName(of: action), on: name, in: account,
      policy: queue?.settings.policy ?? "", tags: tags, tagKeys: tagKeys)
    guard let queue else { throw .queueDoesNotExist }
    return queue
  }

  /// Where this client reaches a queue of the store.
  func url(ofQueue storeName: String) -> String {
    configuration.url(ofQueue: storeName, at: baseURL)
  }
}

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
  private let requestIDs = RequestIDs()

  /// Serves an open store, which the caller closes afterwards.
  public init(store: Store, configuration: SQSConfiguration = SQSConfiguration()) {
    self.store = store
    self.configuration = configuration
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
    if request.method == "GET", request.target == Metrics.path {
      let store = store
      completion(SQSReply { Metrics.response(store) })
      return nil
    }
    let wire = WireProtocol(request)
    guard wire == .json else {
      let response = QueryProtocol.answer(request, requestID: requestID)
      completion(SQSReply { response })
      return nil
    }
    let call = Call(
      service: self, baseURL: baseURL(request), requestID: requestID,
      traceHeader: request.headers.first("x-amzn-trace-id").flatMap {
        (1...SystemAttribute.maximumTraceHeader).contains($0.utf8.count) ? $0 : nil
      }, completion: completion)
    do throws(SQSError) {
      let action = try Self.action(request)
      return try call.run(action, Self.fields(request.body))
    } catch {
      // That a queue is not there may be news that could still vanish.
      if error.kind == .queueDoesNotExist {
        call.settle { call.fail(error) }
      } else {
        call.fail(error)
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
    return try Action(named: String(target.dropFirst(prefix.count)))
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

  /// Where this client reaches the server, by its own words.
  private func baseURL(_ request: SQSRequest) -> String {
    guard let host = request.headers.first("host"), Self.isAuthority(host) else {
      return "http://" + configuration.fallbackAuthority
    }
    return "http://" + host
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
  /// Scheme and authority for queue URLs.
  let baseURL: String
  let requestID: String
  /// The X-Amzn-Trace-Id header.
  let traceHeader: String?
  let completion: @Sendable (SQSReply) -> Void

  var store: Store { service.store }
  var configuration: SQSConfiguration { service.configuration }

  /// Throws only before the store has taken over the completion.
  func run(_ action: Action, _ fields: Fields) throws(SQSError) -> ReceiveTicket? {
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
    }
    return nil
  }

  /// Answers with an object. `write` runs on the thread that writes the response.
  func finish(_ write: @escaping @Sendable (inout JSONWriter) -> Void) {
    let requestID = self.requestID
    completion(
      SQSReply {
        var writer = JSONWriter()
        writer.beginObject()
        write(&writer)
        writer.endObject()
        return .json(writer.bytes, requestID: requestID)
      })
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

  /// Answers success of an action without output.
  func finish() {
    let requestID = self.requestID
    completion(SQSReply { .json([], requestID: requestID) })
  }

  func fail(_ error: SQSError) {
    let requestID = self.requestID
    completion(SQSReply { .failure(error, in: .json, requestID: requestID) })
  }

  /// Answers what a store call without output came to.
  func finish<Value>(_ result: Result<Value, PenstockError>) {
    switch result {
    case .success: finish()
    case .failure(let error): fail(SQSError(error))
    }
  }

  /// The queue that `QueueUrl` names. Absent, empty, unreadable and foreign ones all do not exist.
  func queue(_ url: String?) throws(SQSError) -> QueueListing {
    guard let url, let address = QueueAddress(parsing: url),
      (address.account ?? configuration.accountID) == configuration.accountID,
      let queue = store.lookup(address.name)
    else { throw .queueDoesNotExist }
    return queue
  }

  func url(ofQueue name: String) -> String {
    baseURL + "/" + configuration.accountID + "/" + name
  }
}

// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOHTTP1
internal import NIOSSL
internal import Penstock
internal import PenstockSQS

/// One client connection: collects a request, hands it to the service, writes the response.
///
/// Sits behind NIO's decoder and writes whole responses, head and body in one buffer. What a client
/// pipelines waits here until the request before it is answered, as much as one request may have.
///
/// Invariants
/// - I1: one request is with the service and one unsent response is held, at most: while the peer
///   does not read, nothing more is asked of the service.
/// - I2: in every phase but `working` a deadline is set; in `working` the engine answers. What the
///   peer does not read in the time for a request ends the connection in any phase but `working`.
/// - I3: `reserved` bytes are given back exactly once.
/// - I4: the decoder gets no bytes that no request can come of: behind the last request, behind
///   bytes that were none, and behind the last response. It would keep them.
final class HTTPConnection: ChannelDuplexHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private enum Phase {
    /// Between requests. True once the first byte of the next one is there.
    case idle(hasBytes: Bool)
    /// The head is there, the end of the body is not.
    case receiving
    /// Complete, but the peer has not read earlier responses yet.
    case held
    /// The service has it. The ticket names a receive that may wait.
    case working(ReceiveTicket?)
    /// The last response is written. Input is thrown away.
    case closing

    /// Whether a complete request is not answered yet.
    var isBusy: Bool {
      switch self {
      case .held, .working: true
      case .idle, .receiving, .closing: false
      }
    }
  }

  /// What comes from the decoder.
  private enum Arrival {
    case part(HTTPServerRequestPart)
    /// Bytes that are no request; nothing can be read behind them.
    case broken
    /// The client has closed its side.
    case end
  }

  private let table: ConnectionTable
  private var shared: ServerShared { table.shared }
  private var id: UInt64 = 0
  private var context: ChannelHandlerContext?
  private var phase = Phase.idle(hasBytes: false)
  private var deadline: NIODeadline?
  /// What came behind a request that is not answered yet.
  private var arrivals = CircularBuffer<Arrival>(initialCapacity: 0)
  /// Bytes that came while a request was not answered.
  private var behind = 0
  /// The head that came last asks for another protocol: its request is the last.
  private var isUpgrade = false
  /// Nothing that still comes can be a request.
  private var isDeaf = false
  /// The client has closed its side.
  private var hasEnded = false
  /// The channel asked for a read that waits until `arrivals` is empty.
  private var isReadDue = false
  private var head: HTTPRequestHead?
  private var body: [UInt8] = []
  /// Bytes of `body` that count in the server's gauge.
  private var reserved = 0
  /// Bytes thrown away since the last response.
  private var discarded = 0
  /// Bytes of a large response that count in the server's gauge and are not written yet.
  private var unsent = 0
  /// Smaller ones are not counted: the number of connections bounds them.
  private static let largeResponse = 64 << 10
  private var requestNumber: UInt64 = 0
  private var needsFlush = false
  /// When the last response was written; nil once all of it is known to be with the system.
  private var repliedAt: NIODeadline?
  /// The peer's address as text, and what the proxy before it says if that counts.
  private lazy var peerAddress = context?.channel.remoteAddress.flatMap(Self.text)

  init(table: ConnectionTable) { self.table = table }

  // MARK: Events of the channel

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    id = table.add(self)
    deadline = .now() + shared.configuration.requestTimeout.timeAmount
  }

  func handlerRemoved(context: ChannelHandlerContext) { forget() }

  func channelInactive(context: ChannelHandlerContext) {
    forget()
    context.fireChannelInactive()
  }

  /// The client is gone: what it waited for must not take messages any more.
  private func forget() {
    guard self.context != nil else { return }
    self.context = nil
    if case .working(let ticket?) = phase { table.handler.cancel(ticket) }
    phase = .closing
    arrivals.removeAll()
    releaseBody()
    table.remove(id)
  }

  /// Bytes came in, before they are parsed; false when they are not to be (I4).
  func bytesArrived(_ count: Int) -> Bool {
    requestBegins()
    if phase.isBusy {
      behind += count
      if behind > shared.configuration.maximumBodyBytes + 65_536, !isDeaf {
        isDeaf = true
        arrivals.append(.broken)
      }
    }
    var isClosing = false
    if case .closing = phase { isClosing = true }
    guard isDeaf || isClosing else { return true }
    // Input behind a refusal is read so that the client gets to the answer, but not for ever.
    discarded += count
    if discarded > 4 * shared.configuration.maximumBodyBytes { abort() }
    return false
  }

  /// Starts the clock of a request whose head trickles.
  private func requestBegins() {
    guard case .idle(hasBytes: false) = phase else { return }
    phase = .idle(hasBytes: true)
    deadline = .now() + shared.configuration.requestTimeout.timeAmount
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let part = Self.unwrapInboundIn(data)
    if case .head(let head) = part {
      isUpgrade = head.method == .CONNECT || head.headers.contains(name: "upgrade")
    } else if case .end = part, isUpgrade {
      isDeaf = true
    }
    arrive(.part(part), context)
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard case ChannelEvent.inputClosed = event else {
      return context.fireUserInboundEventTriggered(event)
    }
    // It may be gone altogether: nothing that it waits for must go to it any more.
    hasEnded = true
    if case .working(let ticket?) = phase { table.handler.cancel(ticket) }
    arrive(.end, context)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    guard error is HTTPParserError else { return context.close(promise: nil) }
    isDeaf = true
    arrive(.broken, context)
  }

  func read(context: ChannelHandlerContext) {
    if phase.isBusy, behind > 0 || isDeaf { isReadDue = true } else { context.read() }
  }

  private func arrive(_ arrival: Arrival, _ context: ChannelHandlerContext) {
    if phase.isBusy { arrivals.append(arrival) } else { take(arrival, context) }
  }

  /// Goes on with what came while a request was worked on.
  private func takeArrivals(_ context: ChannelHandlerContext) {
    while !phase.isBusy, let arrival = arrivals.popFirst() { take(arrival, context) }
    guard !phase.isBusy else { return }
    behind = 0
    guard isReadDue else { return }
    isReadDue = false
    context.read()
  }

  private func take(_ arrival: Arrival, _ context: ChannelHandlerContext) {
    switch (arrival, phase) {
    case (.part(.head(let head)), .idle): receive(head, context)
    case (.part(.body(let part)), .receiving): receive(part, context)
    case (.part(.end), .receiving):
      if context.channel.isWritable {
        dispatch(context)
      } else {
        phase = .held
      }
    case (.broken, .idle), (.broken, .receiving):
      releaseBody()
      write(.badRequest, head, closes: true, context)
    case (.end, .idle), (.end, .receiving): closeWhenSent()
    case (.end, .closing):
      if unsentBytes(context) == 0 { context.close(promise: nil) }
    default: break
    }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    if case .held = phase, context.channel.isWritable { dispatch(context) }
    context.fireChannelWritabilityChanged()
  }

  // MARK: A request

  private func receive(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
    // A pipelined request was there before anyone waited for its first byte.
    requestBegins()
    self.head = head
    phase = .receiving
    guard Self.isProper(head) else {
      write(.badRequest, head, closes: true, context)
      return
    }
    let length = head.headers.first(name: "content-length").flatMap { Int($0) }
    if let length, length > shared.configuration.maximumBodyBytes {
      refuse(tooLarge, context)
      return
    }
    let expects = head.headers.first(name: "expect")?.lowercased() == "100-continue"
    if expects, head.version != .http1_0 {
      let line = context.channel.allocator.buffer(string: "HTTP/1.1 100 Continue\r\n\r\n")
      context.writeAndFlush(Self.wrapOutboundOut(line), promise: nil)
    }
  }

  /// False for requests that two readers could take for different ones, as far as the parser lets
  /// them pass: no or several hosts, an encoding where there is none, and a target that is no path.
  private static func isProper(_ head: HTTPRequestHead) -> Bool {
    guard head.version.major == 1 else { return false }
    let hosts = head.headers["host"].count
    if hosts > 1 || hosts == 0 && head.version.minor > 0 { return false }
    if head.headers.contains(name: "transfer-encoding"),
      head.version.minor == 0 || head.headers.contains(name: "content-length")
    {
      return false
    }
    return head.uri.hasPrefix("/") || head.method == .CONNECT || head.uri == "*"
  }

  private var tooLarge: (SQSRequest) -> SQSResponse {
    { [shared, table] in
      table.handler.tooLarge($0, limit: shared.configuration.maximumBodyBytes)
    }
  }

  private func receive(_ part: ByteBuffer, _ context: ChannelHandlerContext) {
    let count = part.readableBytes
    guard body.count + count <= shared.configuration.maximumBodyBytes else {
      refuse(tooLarge, context)
      return
    }
    guard shared.bufferedBytes.take(count) else {
      refuse(table.handler.overloaded, context)
      return
    }
    reserved += count
    if body.isEmpty {
      body = Array(buffer: part)
    } else {
      body.append(contentsOf: part.readableBytesView)
    }
  }

  private func releaseBody() {
    body = []
    shared.bufferedBytes.giveBack(reserved)
    reserved = 0
  }

  private func request(_ context: ChannelHandlerContext) -> SQSRequest? {
    guard let head else { return nil }
    var (address, isSecure) = (peerAddress, shared.tls != nil)
    if shared.configuration.trustsForwarded {
      // The proxy adds to the end; what is before may be the client's own.
      if let clients = head.headers[canonicalForm: "x-forwarded-for"].last {
        address = (try? SocketAddress(ipAddress: String(clients), port: 0)).flatMap(Self.text)
      }
      if let scheme = head.headers[canonicalForm: "x-forwarded-proto"].last {
        isSecure = scheme.lowercased() == "https"
      }
    }
    return SQSRequest(
      method: head.method.rawValue, target: head.uri,
      headers: RequestHeaders(headers: head.headers, local: context.channel.localAddress),
      body: body, remoteAddress: address, isSecure: isSecure)
  }

  /// An address without its port. One of IPv4 that came over IPv6 is one of IPv4.
  private static func text(_ address: SocketAddress) -> String? {
    guard let text = address.ipAddress else { return nil }
    let mapped = "::ffff:"
    guard text.lowercased().hasPrefix(mapped), text.contains(".") else { return text }
    return String(text.dropFirst(mapped.count))
  }

  private func dispatch(_ context: ChannelHandlerContext) {
    guard let request = request(context) else { return }
    body = []
    deadline = nil
    requestNumber += 1
    phase = .working(nil)
    let (connection, number, mailbox) = (id, requestNumber, table.mailbox)
    let loop = NIOLoopBound(table, eventLoop: context.eventLoop)
    // The engine may hold the body longer than this connection lives.
    let (held, bufferedBytes) = (reserved, shared.bufferedBytes)
    reserved = 0
    let ticket = table.handler.handle(request) { reply in
      bufferedBytes.giveBack(held)
      mailbox.post(
        Delivery(connection: connection, request: number, reply: reply), to: loop)
    }
    phase = .working(ticket)
    if table.isDraining || hasEnded, let ticket { table.handler.cancel(ticket) }
  }

  // MARK: A response

  /// Writes the reply, unless the client has moved on. Returns true if this connection must be
  /// flushed and was not marked for it yet.
  func deliver(_ delivery: Delivery, now: NIODeadline) -> Bool {
    guard let context, let head, case .working = phase, delivery.request == requestNumber else {
      return false
    }
    var response = delivery.reply.response()
    let large = response.body.count > Self.largeResponse ? response.body.count : 0
    if large > 0, !shared.unsentBytes.take(large) {
      // Others have not read theirs. What was received here comes back when its lease ends.
      guard let request = self.request(context) else { return false }
      releaseBody()
      response = table.handler.overloaded(request)
      write(response, head, closes: true, context)
      return false
    }
    unsent = large
    // After an upgrade request the parser reads no more, whatever was answered.
    let closes =
      table.isDraining || !head.isKeepAlive || head.method == .CONNECT
      || head.headers.contains(name: "upgrade") || isLast
    releaseBody()
    if closes {
      write(response, head, closes: true, context)
      return false
    }
    phase = .idle(hasBytes: false)
    deadline = now + shared.configuration.idleTimeout.timeAmount
    repliedAt = now
    let wasMarked = needsFlush
    needsFlush = true
    write(response, head, closes: false, context)
    takeArrivals(context)
    return !wasMarked
  }

  /// Whether the client has closed its side behind the request that is worked on.
  private var isLast: Bool {
    if case .end? = arrivals.first { true } else { false }
  }

  func flushIfNeeded() {
    guard needsFlush else { return }
    needsFlush = false
    context?.flush()
  }

  /// Answers before the request is complete. The rest of it is thrown away, so that the client
  /// gets to read the answer.
  private func refuse(
    _ answer: (SQSRequest) -> SQSResponse, _ context: ChannelHandlerContext
  ) {
    guard let head, let request = request(context) else { return }
    releaseBody()
    write(answer(request), head, closes: true, context)
  }

  /// - Parameter request: nil when none could be read.
  private func write(
    _ response: SQSResponse, _ request: HTTPRequestHead?, closes: Bool,
    _ context: ChannelHandlerContext
  ) {
    var buffer = context.channel.allocator.buffer(capacity: response.body.count + 320)
    buffer.write(
      response, date: table.date,
      connection: closes ? "close" : request?.version == .http1_0 ? "keep-alive" : nil)
    if closes {
      finish(buffer, context)
    } else {
      context.write(Self.wrapOutboundOut(buffer), promise: sentPromise(context))
    }
  }

  /// Sends the last response, or the rest of it, closes this side, and gives the client a moment
  /// to read before the connection goes: closing with unread input would reset it.
  private func finish(_ response: ByteBuffer, _ context: ChannelHandlerContext) {
    phase = .closing
    deadline = .now() + shared.configuration.requestTimeout.timeAmount
    needsFlush = false
    let promise = sentPromise(context) ?? context.eventLoop.makePromise()
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    promise.futureResult.whenComplete { _ in
      let (connection, context) = bound.value
      connection.deadline = .now() + .seconds(5)
      context.close(mode: .output, promise: nil)
    }
    context.writeAndFlush(Self.wrapOutboundOut(response), promise: promise)
    takeArrivals(context)
  }

  /// Gives back the bytes of a large response once the peer has taken them, or is gone.
  private func sentPromise(_ context: ChannelHandlerContext) -> EventLoopPromise<Void>? {
    guard unsent > 0 else { return nil }
    let (gauge, count) = (shared.unsentBytes, unsent)
    unsent = 0
    let promise = context.eventLoop.makePromise(of: Void.self)
    promise.futureResult.whenComplete { _ in gauge.giveBack(count) }
    return promise
  }

  // MARK: Time and the end

  func checkDeadline(_ now: NIODeadline) {
    guard let context else { return }
    if hasUnreadResponse(now, context) { return abort() }
    guard let deadline, deadline <= now else { return }
    switch phase {
    case .receiving: refuse(table.handler.tooSlow, context)
    case .idle(hasBytes: false) where requestNumber > 0:
      phase = .closing
      self.deadline = now + .seconds(5)
      context.close(promise: nil)
    default: abort()
    }
  }

  /// Whether the peer had the time of a request to read the last response, and has not.
  private func hasUnreadResponse(_ now: NIODeadline, _ context: ChannelHandlerContext) -> Bool {
    guard let repliedAt else { return false }
    if case .working = phase { return false }
    guard repliedAt + shared.configuration.requestTimeout.timeAmount <= now else { return false }
    self.repliedAt = nil
    return unsentBytes(context) > 0
  }

  private func unsentBytes(_ context: ChannelHandlerContext) -> Int {
    (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
  }

  /// Closes the connection now. TLS would wait for the peer's farewell.
  func abort() {
    guard let context else { return }
    let tls = try? context.pipeline.syncOperations.context(handlerType: NIOSSLServerHandler.self)
    (tls ?? context).close(promise: nil)
  }

  /// Part of a stop: gives up what is idle, ends a long poll, lets the rest finish.
  func drain() {
    switch phase {
    case .idle: closeWhenSent()
    case .working(let ticket?): table.handler.cancel(ticket)
    case .receiving, .held, .working(nil), .closing: break
    }
  }

  /// Closes at once, or after the peer has taken what was written to it.
  private func closeWhenSent() {
    guard let context else { return }
    phase = .closing
    if unsentBytes(context) == 0 {
      context.close(promise: nil)
    } else {
      finish(ByteBuffer(), context)
    }
  }
}

/// Tells the connection that bytes came, before the HTTP parser makes anything of them.
final class ByteArrivalHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let connection: HTTPConnection

  init(connection: HTTPConnection) { self.connection = connection }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard connection.bytesArrived(Self.unwrapInboundIn(data).readableBytes) else { return }
    context.fireChannelRead(data)
  }
}

/// Headers of a request as the service reads them. A client that sends no `Host` is told the
/// address it came to.
struct RequestHeaders: SQSHeaders {
  let headers: HTTPHeaders
  let local: SocketAddress?

  func first(_ name: String) -> String? {
    if let value = headers.first(name: name) { return value }
    guard name == "host", let local, let host = local.ipAddress, let port = local.port else {
      return nil
    }
    return ServerAddress(host: host, port: port).authority
  }

  func all(_ name: String) -> [String] { headers[name] }

  var names: [String] {
    var seen: Set<String> = []
    return headers.map { $0.name.lowercased() }.filter { seen.insert($0).inserted }
  }
}

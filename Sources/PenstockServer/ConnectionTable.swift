// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import PenstockSQS

/// What all connections of a server share.
struct ServerShared: Sendable {
  var configuration: PenstockServer.Configuration
  var tls: TLSCredentials?
  /// Who may sign requests; nil when nobody is asked.
  var credentials: CredentialStore?
  /// Open connections.
  var connections: Gauge
  /// Bytes of request bodies.
  var bufferedBytes: Gauge
  /// Bytes of large responses that their clients have not read.
  var unsentBytes: Gauge
}

/// The connections of one event loop. Used on that loop only.
///
/// Invariants
/// - I1: a connection is in the table from its first event to its last.
/// - I2: while the table is not empty, a repeated task closes connections past their deadline.
final class ConnectionTable {
  let eventLoop: any EventLoop
  let shared: ServerShared
  /// Answers requests.
  var handler: any SQSHandler
  /// The clock for `Date` headers, in seconds since 1970.
  var wallSeconds: @Sendable () -> Int64
  let mailbox = ReplyMailbox()
  private var connections: [UInt64: HTTPConnection] = [:]
  private var lastID: UInt64 = 0
  private var sweeper: RepeatedTask?
  private var dateText = ""
  private var dateSeconds: Int64 = -1
  private(set) var isDraining = false
  private var drained: EventLoopPromise<Void>?

  init(
    eventLoop: any EventLoop, shared: ServerShared, handler: any SQSHandler,
    wallSeconds: @escaping @Sendable () -> Int64
  ) {
    self.eventLoop = eventLoop
    self.shared = shared
    self.handler = handler
    self.wallSeconds = wallSeconds
  }

  /// Takes a connection in and gives it its id.
  func add(_ connection: HTTPConnection) -> UInt64 {
    lastID += 1
    connections[lastID] = connection
    if sweeper == nil { startSweeping() }
    return lastID
  }

  func remove(_ id: UInt64) {
    connections[id] = nil
    guard connections.isEmpty else { return }
    sweeper?.cancel()
    sweeper = nil
    drained?.succeed()
    drained = nil
  }

  /// Value of the `Date` header, made once per second.
  var date: String {
    let seconds = wallSeconds()
    if seconds != dateSeconds {
      dateSeconds = seconds
      dateText = HTTPDate.text(secondsSince1970: seconds)
    }
    return dateText
  }

  /// Writes all replies that have come in, then flushes each connection once.
  func deliver() {
    let now = NIODeadline.now()
    var written: [HTTPConnection] = []
    for delivery in mailbox.takeAll() {
      guard let connection = connections[delivery.connection] else { continue }
      if connection.deliver(delivery, now: now) { written.append(connection) }
    }
    for connection in written { connection.flushIfNeeded() }
  }

  private func startSweeping() {
    let shortest = min(
      shared.configuration.requestTimeout.timeAmount, shared.configuration.idleTimeout.timeAmount)
    let interval = TimeAmount.nanoseconds(
      min(max(shortest.nanoseconds / 4, 10_000_000), 5_000_000_000))
    let loop = NIOLoopBound(self, eventLoop: eventLoop)
    sweeper = eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
      loop.value.sweep()
    }
  }

  private func sweep() {
    let now = NIODeadline.now()
    for connection in Array(connections.values) { connection.checkDeadline(now) }
  }

  /// Closes idle connections, ends long polls, lets the rest finish, and closes what is left at
  /// `deadline`. The future succeeds when no connection is left.
  func drain(deadline: NIODeadline) -> EventLoopFuture<Void> {
    isDraining = true
    let promise = eventLoop.makePromise(of: Void.self)
    guard !connections.isEmpty else {
      promise.succeed()
      return promise.futureResult
    }
    drained = promise
    let loop = NIOLoopBound(self, eventLoop: eventLoop)
    let timer = eventLoop.scheduleTask(deadline: deadline) {
      for connection in Array(loop.value.connections.values) { connection.abort() }
    }
    promise.futureResult.whenComplete { _ in timer.cancel() }
    for connection in Array(connections.values) { connection.drain() }
    return promise.futureResult
  }
}

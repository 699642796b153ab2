// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import NIOCore
import NIOPosix
import PenstockSystem

/// What each connection does, again and again.
enum WireWork: String, CaseIterable, Sendable {
  /// Asks for a page that is always the same.
  case page
  case send
  /// Sends ten at a time.
  case batch
  /// Sends one message, receives one, deletes it.
  case cycle
  /// Receives from an empty queue.
  case empty

  /// Messages, or pages, of one round.
  var count: Int { self == .batch ? 10 : 1 }
}

/// A server under load, over HTTP.
struct WireTarget: Sendable {
  var name: String
  var host: String
  var port: Int
  /// Path of the page; nil for a server that speaks SQS.
  var page: String?

  /// `NAME=http://HOST:PORT[/PATH]`.
  init?(_ text: String, isPage: Bool) {
    let parts = text.split(separator: "=", maxSplits: 1)
    guard parts.count == 2, let url = URL(string: String(parts[1])), url.scheme == "http",
      let host = url.host, let port = url.port
    else { return nil }
    self.init(
      String(parts[0]), host, port, page: isPage ? (url.path.isEmpty ? "/" : url.path) : nil)
  }

  init(_ name: String, _ host: String, _ port: Int, page: String? = nil) {
    (self.name, self.host, self.port, self.page) = (name, host, port, page)
  }

  func request(_ action: String, _ body: String) -> ByteBuffer {
    // The signature is not one; some servers look into it for the service's name.
    ByteBuffer(
      string: "POST / HTTP/1.1\r\nHost: \(host):\(port)\r\n"
        + "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.\(action)\r\n"
        + "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/sqs/aws4_request, "
        + "SignedHeaders=host, Signature=0\r\nContent-Length: \(body.utf8.count)\r\n\r\n" + body)
  }
}

/// Connections that each send their next request when the last one is answered.
enum WireLoad {
  /// Runs one work for some seconds.
  static func measure(
    _ work: WireWork, of target: WireTarget, queue: String, body: Int, connections: Int,
    seconds: Double, on loops: MultiThreadedEventLoopGroup
  ) async throws -> Measurement {
    let text = String(repeating: "x", count: body)
    let script = WireScript(work, target, queue: queue, body: text)
    let clock = RealClock()
    let end = clock.monotonicNanoseconds() + UInt64(seconds * 1e9)
    let began = clock.monotonicNanoseconds()
    let measurements = try await withThrowingTaskGroup(of: [UInt64].self) { tasks in
      for _ in 0..<connections {
        tasks.addTask { try await run(script, target, until: end, loops) }
      }
      var all: [[UInt64]] = []
      for try await latencies in tasks { all.append(latencies) }
      return all
    }
    var measurement = Measurement()
    for latency in measurements.joined() { measurement.latencies.record(latency) }
    measurement.count = Int(measurement.latencies.count) * work.count
    measurement.elapsed = clock.monotonicNanoseconds() - began
    return measurement
  }

  private static func run(
    _ script: WireScript, _ target: WireTarget, until end: UInt64,
    _ loops: MultiThreadedEventLoopGroup
  ) async throws -> [UInt64] {
    let loop = loops.next()
    let done = loop.makePromise(of: [UInt64].self)
    let left = Int64(clamping: end &- RealClock().monotonicNanoseconds())
    // A server that stops answering ends the run.
    let timer = loop.scheduleTask(in: .nanoseconds(left) + .seconds(15)) {
      done.fail(ValidationError("\(target.name) gave no answer for 15 s."))
    }
    defer { timer.cancel() }
    loop.execute {
      WireClient(script, target, until: end, done).connect(on: loop)
    }
    return try await done.futureResult.get()
  }

  /// Makes one request and answers its body.
  static func ask(
    _ action: String, _ body: String, of target: WireTarget,
    _ loops: MultiThreadedEventLoopGroup
  ) async throws -> String {
    let done = loops.next().makePromise(of: String.self)
    let channel = try await ClientBootstrap(group: loops)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(WireQuestion(done))
        }
      }
      .connect(host: target.host, port: target.port).get()
    try await channel.writeAndFlush(target.request(action, body))
    let answer = try await done.futureResult.get()
    try await channel.close()
    return answer
  }
}

/// The requests of one round, ready to be sent.
struct WireScript: Sendable {
  var steps: [ByteBuffer]
  private var target: WireTarget
  private var queue: String
  /// Whether the last request deletes what the one before it has received.
  var deletes: Bool

  init(_ work: WireWork, _ target: WireTarget, queue: String, body: String) {
    (self.target, self.queue) = (target, queue)
    let named = #"{"QueueUrl":"\#(queue)""#
    let send = target.request("SendMessage", #"\#(named),"MessageBody":"\#(body)"}"#)
    let receive = target.request("ReceiveMessage", named + "}")
    deletes = work == .cycle
    switch work {
    case .page:
      steps = [
        ByteBuffer(
          string:
            "GET \(target.page ?? "/") HTTP/1.1\r\nHost: \(target.host):\(target.port)\r\n\r\n")
      ]
    case .send: steps = [send]
    case .batch:
      let entries = (0..<10).map { #"{"Id":"\#($0)","MessageBody":"\#(body)"}"# }
      steps = [
        target.request(
          "SendMessageBatch", #"\#(named),"Entries":[\#(entries.joined(separator: ","))]}"#)
      ]
    case .cycle: steps = [send, receive]
    case .empty: steps = [receive]
    }
  }

  func delete(_ handle: String) -> ByteBuffer {
    target.request("DeleteMessage", #"{"QueueUrl":"\#(queue)","ReceiptHandle":"\#(handle)"}"#)
  }
}

/// Cuts a stream of answers into single ones.
struct WireAnswers {
  private var buffer = ByteBuffer()

  mutating func append(_ bytes: inout ByteBuffer) { buffer.writeBuffer(&bytes) }

  /// The first answer, once it is complete.
  mutating func take() -> (status: Int, closes: Bool, body: ByteBuffer)? {
    let view = buffer.readableBytesView
    guard let end = view.firstRange(of: Self.blankLine) else { return nil }
    let head = String(decoding: view[..<end.lowerBound], as: UTF8.self).lowercased()
    guard let field = head.range(of: "content-length: "),
      let length = Int(head[field.upperBound...].prefix { $0.isNumber }),
      let status = Int(head.dropFirst(9).prefix(3)),
      view.distance(from: end.upperBound, to: view.endIndex) >= length
    else { return nil }
    buffer.moveReaderIndex(forwardBy: view.distance(from: view.startIndex, to: end.upperBound))
    guard let body = buffer.readSlice(length: length) else { return nil }
    buffer.discardReadBytes()
    return (status, head.contains("connection: close"), body)
  }

  private static let blankLine = Array("\r\n\r\n".utf8)
}

/// One client of a load, on one event loop. Connects again where the server closes.
private final class WireClient: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let script: WireScript
  private let target: WireTarget
  private let end: UInt64
  private let done: EventLoopPromise<[UInt64]>
  private let clock = RealClock()
  private var answers = WireAnswers()
  private var latencies: [UInt64] = []
  private var step = 0
  private var began: UInt64 = 0
  /// What is to be asked, or is.
  private var request: ByteBuffer
  private var isOver = false

  init(
    _ script: WireScript, _ target: WireTarget, until end: UInt64,
    _ done: EventLoopPromise<[UInt64]>
  ) {
    (self.script, self.target, self.end, self.done) = (script, target, end, done)
    request = script.steps[0]
  }

  func connect(on loop: any EventLoop) {
    let bound = NIOLoopBound(self, eventLoop: loop)
    ClientBootstrap(group: loop)
      .channelOption(.tcpOption(.tcp_nodelay), value: 1)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(bound.value)
        }
      }
      .connect(host: target.host, port: target.port)
      .whenFailure { [done] error in done.fail(error) }
  }

  func channelActive(context: ChannelHandlerContext) {
    answers = WireAnswers()
    if began == 0 { began = clock.monotonicNanoseconds() }
    write(context)
  }

  private func write(_ context: ChannelHandlerContext) {
    context.writeAndFlush(NIOAny(request), promise: nil)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = Self.unwrapInboundIn(data)
    answers.append(&bytes)
    while !isOver, let (status, closes, body) = answers.take() {
      guard status == 200 else {
        return end(context) {
          $0.fail(ValidationError("an answer was \(status): \(String(buffer: body))"))
        }
      }
      request = next(body)
      if isOver { return end(context) { [latencies] in $0.succeed(latencies) } }
      if closes { return context.close(promise: nil) }
      write(context)
    }
  }

  private func end(
    _ context: ChannelHandlerContext, _ tell: (EventLoopPromise<[UInt64]>) -> Void
  ) {
    isOver = true
    tell(done)
    context.close(promise: nil)
  }

  /// The request after this answer.
  private func next(_ body: ByteBuffer) -> ByteBuffer {
    step += 1
    if step < script.steps.count { return script.steps[step] }
    if script.deletes, step == script.steps.count {
      if let handle = Self.handle(in: body) { return script.delete(handle) }
      // Others were faster; there is one for each that was sent.
      step -= 1
      return script.steps[step]
    }
    let now = clock.monotonicNanoseconds()
    latencies.append(now - began)
    began = now
    isOver = now >= end
    step = 0
    return script.steps[0]
  }

  private static func handle(in body: ByteBuffer) -> String? {
    let view = body.readableBytesView
    guard let name = view.firstRange(of: Array("\"ReceiptHandle\"".utf8)) else { return nil }
    let parts = view[name.upperBound...].split(
      separator: UInt8(ascii: "\""), maxSplits: 2, omittingEmptySubsequences: false)
    return parts.count == 3 ? String(decoding: parts[1], as: UTF8.self) : nil
  }

  func channelInactive(context: ChannelHandlerContext) {
    // By then nobody waits any more.
    guard !isOver, clock.monotonicNanoseconds() < end + 15_000_000_000 else { return }
    connect(on: context.eventLoop)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }
}

/// One request on a connection of its own.
private final class WireQuestion: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let done: EventLoopPromise<String>
  private var answers = WireAnswers()
  private var isOver = false

  init(_ done: EventLoopPromise<String>) { self.done = done }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = Self.unwrapInboundIn(data)
    answers.append(&bytes)
    guard !isOver, let (status, _, body) = answers.take() else { return }
    isOver = true
    if status == 200 {
      done.succeed(String(buffer: body))
    } else {
      done.fail(ValidationError("an answer was \(status): \(String(buffer: body))"))
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    if !isOver { done.fail(ValidationError("a server closed a connection.")) }
  }
}

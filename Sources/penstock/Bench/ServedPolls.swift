// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import NIOCore
import NIOPosix
import Penstock
import PenstockSystem

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Polls of a server in a process of its own, a connection each.
final class ServedPolls: WaitingPolls {
  private let polls: Int
  private let queueCount: Int
  private let path: String
  private let record = WakeRecord()
  private let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  private var server: BenchServer?
  private var connections: [any Channel] = []
  private var control: (any Channel)?

  init(_ polls: Int, _ queues: Int, _ path: String) {
    (self.polls, queueCount, self.path) = (polls, queues, path)
  }

  var residentBytes: Double {
    server.map { BacklogStep.residentMebibytes("\($0.processIdentifier)") * 1_048_576 } ?? 0
  }

  var processorNanoseconds: UInt64 {
    #if os(Linux)
      var (clock, time) = (clockid_t(), timespec())
      guard let server, clock_getcpuclockid(server.processIdentifier, &clock) == 0 else { return 0 }
      clock_gettime(clock, &time)
      return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    #else
      return 0
    #endif
  }

  func begin() async throws {
    let store = try await Store.open(at: path)
    _ = try await store.makeQueues(queueCount)
    try await store.close()
    let server = try BenchServer(path)
    self.server = server
    let port = server.port
    let (loops, record) = (loops, record)
    control = try await Self.connect(port, nil, loops, record)
    for first in stride(from: 0, to: polls, by: 500) {
      let range = first..<min(first + 500, polls)
      connections += try await withThrowingTaskGroup(of: (Int, any Channel).self) { tasks in
        for poll in range {
          tasks.addTask { (poll, try await Self.connect(port, poll, loops, record)) }
        }
        var made: [(Int, any Channel)] = []
        for try await connection in tasks { made.append(connection) }
        return made.sorted { $0.0 < $1.0 }.map(\.1)
      }
    }
    for poll in 0..<polls { receive(poll) }
    // Requests of other connections are taken meanwhile.
    for _ in 0..<100 { try request("ListQueues", #"{"MaxResults":1}"#) }
  }

  private static func connect(
    _ port: Int, _ poll: Int?, _ loops: MultiThreadedEventLoopGroup, _ record: WakeRecord
  ) async throws -> any Channel {
    try await ClientBootstrap(group: loops)
      .channelOption(.tcpOption(.tcp_nodelay), value: 1)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(AnswerHandler(poll, record))
        }
      }
      .connect(host: "127.0.0.1", port: port).get()
  }

  // MARK: Requests

  private func write(_ action: String, _ body: String, to channel: any Channel) {
    let head =
      "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-amz-json-1.0\r\n"
      + "X-Amz-Target: AmazonSQS.\(action)\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
    channel.writeAndFlush(ByteBuffer(string: head + body), promise: nil)
  }

  private func receive(_ poll: Int) {
    let body =
      #"{"QueueUrl":"q\#(poll % queueCount)","WaitTimeSeconds":20,"VisibilityTimeout":43200}"#
    write("ReceiveMessage", body, to: connections[poll])
  }

  private func request(_ action: String, _ body: String) throws {
    guard let control else { return }
    write(action, body, to: control)
    try record.waitForAnswer()
  }

  func wake(_ queue: Int, _ times: inout WakeTimes) throws {
    guard let control else { return }
    let text = String(repeating: "x", count: 100)
    let began = RealClock().monotonicNanoseconds()
    write("SendMessage", #"{"QueueUrl":"q\#(queue)","MessageBody":"\#(text)"}"#, to: control)
    let (answered, woken) = try record.wait()
    times.add(began, answered, woken.at)
    // It waits again while the delete is under way, so it is there for the next send.
    receive(woken.poll)
    try request(
      "DeleteMessage", #"{"QueueUrl":"q\#(queue)","ReceiptHandle":"\#(woken.handle)"}"#)
  }

  func woken() async throws -> Int {
    // What else was woken is answered before this.
    for _ in 0..<100 { try request("ListQueues", #"{"MaxResults":1}"#) }
    return record.count
  }

  func end() {
    server?.stop()
    server = nil
    connections = []
    control = nil
    do { try loops.syncShutdownGracefully() } catch { print("closing connections: \(error)") }
  }
}

/// Puts the answers that come over one connection together, and tells the record of each.
private final class AnswerHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let poll: Int?
  private let record: WakeRecord
  private var bytes: [UInt8] = []

  init(_ poll: Int?, _ record: WakeRecord) { (self.poll, self.record) = (poll, record) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    bytes.append(contentsOf: Self.unwrapInboundIn(data).readableBytesView)
    while let (head, body) = takeAnswer() {
      if !head.hasPrefix("HTTP/1.1 200 ") {
        record.add("an answer was \(head.prefix { $0 != "\r\n" }): \(body)")
      } else if let poll {
        let marker = #""ReceiptHandle":""#
        if let start = body.range(of: marker)?.upperBound {
          let handle = String(body[start...].prefix { $0 != "\"" })
          record.add(nil, .init(poll: poll, handle: handle, at: 0))
        } else {
          record.add("a poll ended before it was woken: try fewer --seconds or --sends.")
        }
      } else {
        record.add(nil)
      }
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    record.add("the server closed a connection.")
  }

  /// Head and body of the first answer, once it is complete.
  private func takeAnswer() -> (head: String, body: String)? {
    let text = String(decoding: bytes, as: UTF8.self)
    guard let end = text.range(of: "\r\n\r\n"),
      let field = text.range(of: "content-length: ", options: .caseInsensitive),
      let length = Int(text[field.upperBound...].prefix { $0.isNumber })
    else { return nil }
    let body = Array(text[end.upperBound...].utf8)
    guard body.count >= length else { return nil }
    bytes = Array(body[length...])
    return (String(text[..<end.lowerBound]), String(decoding: body[..<length], as: UTF8.self))
  }
}

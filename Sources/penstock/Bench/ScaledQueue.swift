// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Penstock
import PenstockSystem

/// What grows along a curve.
enum ScaleCurve: String, CaseIterable, ExpressibleByArgument {
  /// Standard: messages that wait.
  case waiting
  /// Standard: queues, each with a message.
  case queues
  /// FIFO: each group has a message in flight, a tenth of them one more that waits.
  case groups
  /// FIFO: all messages wait in one group.
  case oneGroup = "one-group"
  /// Standard: messages in flight.
  case inFlight = "in-flight"
  /// Tasks that send at the same time.
  case producers

  var title: String {
    switch self {
    case .waiting: "waiting messages"
    case .queues: "queues"
    case .groups: "FIFO groups"
    case .oneGroup: "messages of one group"
    case .inFlight: "messages in flight"
    case .producers: "producers"
    }
  }

  var points: [Int] {
    switch self {
    case .waiting, .groups, .oneGroup: [1000, 10_000, 100_000, 1_000_000]
    case .queues: [1, 10, 100, 1000, 10_000]
    case .inFlight: [100, 1000, 10_000, 100_000]
    case .producers: [1, 4, 16, 64, 256]
    }
  }

  var isFIFO: Bool { self == .groups || self == .oneGroup }
}

/// A store that holds much of something, and rounds of a load that leave it as it was.
final class ScaledQueue {
  /// Microseconds per message; receives and deletes are 0 where only sends are measured.
  struct Times {
    var send = 0.0
    var receive = 0.0
    var delete = 0.0
  }

  private let curve: ScaleCurve
  private let count: Int
  private let store: Store
  private var queues: [Queue] = []
  private let body: Int
  private let batch: Int
  private let clock = RealClock()
  /// Of `groups`: the message in flight of each.
  private var held: [LeaseHandle?] = []
  private var cursor = 0

  init(
    _ curve: ScaleCurve, _ count: Int, _ durability: Durability, _ body: Int, _ batch: Int,
    _ path: String
  ) async throws {
    (self.curve, self.count, self.body, self.batch) = (curve, count, body, batch)
    var options = StoreOptions()
    options.durability = durability
    store = try await Store.open(at: path, options: options)
    let isFIFO = curve.isFIFO
    for number in 0..<(curve == .queues ? count : 1) {
      let name = "q\(number)\(isFIFO ? ".fifo" : "")"
      queues.append(try await store.queue(name, QueueSettings(isFIFO: isFIFO)))
    }
    switch curve {
    case .producers: break
    case .queues: for queue in queues { try await queue.fill(0..<1, body: body) { _ in nil } }
    case .waiting: try await queues[0].fill(0..<count, body: body) { _ in nil }
    case .oneGroup: try await queues[0].fill(0..<count, body: body) { _ in "g" }
    case .inFlight:
      try await queues[0].fill(0..<count, body: body) { _ in nil }
      try await queues[0].lease(count)
    case .groups:
      try await queues[0].fill(0..<count, body: body) { "g\($0)" }
      held = Array(repeating: nil, count: count)
      try await queues[0].lease(count) { self.hold($0) }
      try await queues[0].fill(0..<count / 10, body: body) { "g\($0 * 10)" }
    }
  }

  func close() async throws { try await store.close() }

  private func hold(_ lease: Lease) {
    guard let group = lease.message.content.groupID, let place = Int(group.dropFirst()) else {
      return
    }
    held[place] = lease.message.handle
  }

  /// Some batches, or more messages one by one: the median of each call.
  func round() async throws -> Times {
    if curve == .producers { return try await together() }
    var calls: [Times] = []
    for _ in 0..<(batch == 1 ? 25 : 7) {
      var times = Times()
      try await curve == .groups ? turn(&times) : cycle(&times)
      calls.append(times)
    }
    func median(_ part: (Times) -> Double) -> Double {
      Spread(calls.map(part)).median / Double(batch)
    }
    return Times(
      send: median(\.send), receive: median(\.receive), delete: median(\.delete))
  }

  /// As many producers send together for a moment; the queue is empty again after it.
  private func together() async throws -> Times {
    let (queue, entries) = (queues[0], Array(repeating: SendEntry(content(nil)), count: batch))
    let began = clock.monotonicNanoseconds()
    let end = began + 50_000_000
    let sent = try await withThrowingTaskGroup(of: Int.self) { tasks in
      for _ in 0..<count {
        tasks.addTask { [clock] in
          var sent = 0
          repeat {
            for result in try await queue.send(batch: entries) { _ = try result.get() }
            sent += entries.count
          } while clock.monotonicNanoseconds() < end
          return sent
        }
      }
      return try await tasks.reduce(0, +)
    }
    let times = Times(send: microseconds(since: began) / Double(sent))
    try await queue.purge()
    return times
  }

  /// Sends one more to groups here and there, deletes what is in flight of them, and receives what
  /// that lets go.
  private func turn(_ times: inout Times) async throws {
    var groups: [Int] = []
    for _ in 0..<batch {
      // Those in which one more waits are left alone.
      repeat { step() } while cursor.isMultiple(of: 10)
      groups.append(cursor)
    }
    let entries = groups.map { SendEntry(content("g\($0)")) }
    try await send(entries, to: queues[0], &times)
    try await delete(groups.compactMap { held[$0] }, from: queues[0], &times)
    for lease in try await receive(from: queues[0], &times) { hold(lease) }
  }

  /// A prime steps through all of them.
  private func step() { cursor = (cursor + 2_147_483_647) % count }

  /// Sends messages to the end, receives as many from the front, and deletes those.
  private func cycle(_ times: inout Times) async throws {
    step()
    let queue = queues[cursor % queues.count]
    let entry = SendEntry(content(curve == .oneGroup ? "g" : nil))
    try await send(Array(repeating: entry, count: batch), to: queue, &times)
    try await delete(receive(from: queue, &times).map(\.message.handle), from: queue, &times)
  }

  private func content(_ group: String?) -> MessageContent {
    MessageContent(body: [UInt8](repeating: 97, count: body), groupID: group)
  }

  private func send(_ entries: [SendEntry], to queue: Queue, _ times: inout Times) async throws {
    let began = clock.monotonicNanoseconds()
    let results = try await queue.send(batch: entries)
    times.send += microseconds(since: began)
    for result in results { _ = try result.get() }
  }

  private func receive(from queue: Queue, _ times: inout Times) async throws -> [Lease] {
    let began = clock.monotonicNanoseconds()
    var leases: [Lease] = []
    while leases.count < batch {
      let found = try await queue.receive(
        maximum: batch - leases.count, wait: .seconds(60), visibilityTimeout: Queue.long)
      guard !found.isEmpty else { throw BenchFailure("a receive found nothing.") }
      leases += found
    }
    times.receive += microseconds(since: began)
    return leases
  }

  private func delete(
    _ handles: [LeaseHandle], from queue: Queue, _ times: inout Times
  ) async throws {
    let began = clock.monotonicNanoseconds()
    let results = try await queue.delete(handles)
    times.delete += microseconds(since: began)
    for result in results { try result.get() }
  }

  private func microseconds(since began: UInt64) -> Double {
    Double(clock.monotonicNanoseconds() - began) / 1000
  }
}

extension Queue {
  /// Longer than a measurement takes.
  static let long = Duration.seconds(43_200)

  /// Sends a message for each number, four batches at a time.
  func fill(
    _ range: Range<Int>, body: Int, group: @escaping @Sendable (Int) -> String?
  ) async throws {
    let bytes = [UInt8](repeating: 97, count: body)
    try await withThrowingTaskGroup { tasks in
      for producer in 0..<4 {
        tasks.addTask {
          for start in stride(
            from: range.lowerBound + producer * 500, to: range.upperBound, by: 2000)
          {
            let entries = (start..<min(start + 500, range.upperBound)).map {
              SendEntry(MessageContent(body: bytes, groupID: group($0)))
            }
            for result in try await send(batch: entries) { _ = try result.get() }
          }
        }
      }
      try await tasks.waitForAll()
    }
  }

  /// Receives so many, and leaves them in flight.
  func lease(_ count: Int, _ use: (Lease) -> Void = { _ in }) async throws {
    var left = count
    while left > 0 {
      let found = try await receive(
        maximum: min(500, left), wait: .seconds(60), visibilityTimeout: Self.long)
      guard !found.isEmpty else { throw BenchFailure("a receive found nothing.") }
      for lease in found { use(lease) }
      left -= found.count
    }
  }
}

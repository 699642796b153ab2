// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem

/// `penstock bench queues`: whether an operation costs more in a large queue than in a small one.
struct QueuesBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "queues",
    abstract: "Measure sends, receives and deletes of large queues beside small ones, and memory.",
    discussion: """
      Two stores are open, one with a small queue and one with a large one, and take turns: a \
      round of the one, a round of the other. A ratio is of two rounds that followed each other, \
      so what the machine and the device do meanwhile falls out of it. "synced" are single calls, \
      each awaited; "written" are batches of 100 without syncs, which show the engine's own cost.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Groups of the large FIFO queue, and messages of the large group.")
  var large = 1_000_000

  @Option(name: .long, help: "The same of the small ones.")
  var small = 1000

  @Option(name: .long, help: "Messages in flight in the large standard queue.")
  var leased = 100_000

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 100

  @Option(name: .long, help: "Rounds of each.")
  var rounds = 101

  @Flag(name: .long, help: "Measure memory only.")
  var memoryOnly = false

  func validate() throws {
    guard (200...10_000_000).contains(large), (200...large).contains(small) else {
      throw ValidationError("--large must be from 200 to 10000000, --small from 200 to that.")
    }
    guard (100...1_000_000).contains(leased) else {
      throw ValidationError("--leased must be from 100 to 1000000.")
    }
    guard (1...65_536).contains(body) else {
      throw ValidationError("--body must be from 1 to 65536 bytes.")
    }
    guard (1...1000).contains(rounds) else {
      throw ValidationError("--rounds must be from 1 to 1000.")
    }
  }

  func run() async throws {
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    print("machine     \(Machine.description)")
    print("body        \(body) bytes; \(rounds) rounds of each, in turns")
    print("")
    if !memoryOnly {
      print(
        pad("queue", 34) + pad("answer", 10) + pad("call", 9) + lead("small us", 10)
          + lead("large us", 10) + lead("ratio", 7) + lead("of rounds", 14))
      for load in LargeQueue.Load.allCases {
        for durability in [Durability.synced, .written] {
          try await compare(load, durability, in: root)
        }
      }
      print("")
      print(
        """
        "us" are microseconds per message: of each round the median of its calls, of those the
        median. "ratio" is the median of large over small in one round, "of rounds" the first and
        third quartile of it. A send and a delete wait for the answer that is named; a receive's
        lease is written in both.
        """)
      print("")
    }
    try await memory(in: root)
  }

  // MARK: Time

  private func compare(
    _ load: LargeQueue.Load, _ durability: Durability, in root: String
  ) async throws {
    let sizes = load == .leased ? (100, leased) : (small, large)
    let batch = durability == .synced ? 1 : 100
    let small = try await LargeQueue(load, sizes.0, durability, body, batch, "\(root)/small")
    let large = try await LargeQueue(load, sizes.1, durability, body, batch, "\(root)/large")
    var all: [(small: LargeQueue.Times, large: LargeQueue.Times)] = []
    for round in 0...rounds {
      // Each goes first every other time; the first round warms up.
      let isSmallFirst = round.isMultiple(of: 2)
      let before = isSmallFirst ? try await small.round() : nil
      let measured = try await large.round()
      let other = if let before { before } else { try await small.round() }
      if round > 0 { all.append((other, measured)) }
    }
    try await small.close()
    try await large.close()
    let parts: [(String, (LargeQueue.Times) -> Double)] = [
      ("send", { $0.send }), ("receive", { $0.receive }), ("delete", { $0.delete }),
      ("all", { $0.send + $0.receive + $0.delete }),
    ]
    for (name, part) in parts {
      let ratio = Spread(all.map { part($0.large) / part($0.small) })
      print(
        pad(load.title(sizes.0, sizes.1), 34) + pad(durability.rawValue, 10) + pad(name, 9)
          + lead(hundredths(Spread(all.map { part($0.small) }).median), 10)
          + lead(hundredths(Spread(all.map { part($0.large) }).median), 10)
          + lead(hundredths(ratio.median), 7)
          + lead("\(hundredths(ratio.first)) to \(hundredths(ratio.third))", 14))
    }
    removeTree("\(root)/small")
    removeTree("\(root)/large")
  }

  // MARK: Memory

  private func memory(in root: String) async throws {
    print(pad("memory of", 34) + lead("allocated", 11) + lead("resident", 10))
    func row(_ name: String, _ part: (String) -> Double) {
      print(
        pad(name, 34) + lead(tenths(part("allocated")), 11) + lead(tenths(part("resident")), 10))
    }
    let waiting = try step("group", large, "\(root)/group")
    removeTree("\(root)/group")
    row("a waiting message of one group") { waiting["sent-\($0)"] ?? 0 }
    let groups = try step("groups", large, "\(root)/groups")
    removeTree("\(root)/groups")
    row("a group, beside its message") {
      (groups["sent-\($0)"] ?? 0) - (waiting["sent-\($0)"] ?? 0)
    }
    row("a lease, beside those") { groups["leased-\($0)"] ?? 0 }
    print("")
    print(
      """
      Bytes of each: the growth from one half of \(large) to all of them, so what does not grow
      with them, as the buffers of the log, is not in it. "allocated" is what the allocator counts
      as in use, with its own headers; "resident" are pages of the process, after what is free was
      given back to the system.
      """)
  }

  /// Runs a step in a process of its own, and reads the numbers that it prints.
  private func step(_ kind: String, _ count: Int, _ path: String) throws -> [String: Double] {
    try BacklogBench.runStep(
      ["bench", "queues-step", kind, path, "--count", "\(count)", "--body", "\(body)"])
  }
}

/// One process of the measurement of memory; prints a name and a number a line.
struct QueuesStep: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "queues-step", abstract: "A part of queues.", shouldDisplay: false)

  enum Kind: String, ExpressibleByArgument, CaseIterable { case group, groups }

  @Argument var kind: Kind
  @Argument var path: String
  @Option(name: .long) var count = 1000
  @Option(name: .long) var body = 100

  func run() async throws {
    var options = StoreOptions()
    options.durability = .written
    let store = try await Store.open(at: path, options: options)
    let queue = try await store.queue("large.fifo", QueueSettings(isFIFO: true))
    try await grow("sent") {
      try await queue.fill($0, body: body) { kind == .group ? "g" : "g\($0)" }
    }
    if kind == .groups { try await grow("leased") { try await queue.lease($0.count) } }
    print("done 1")
    try await store.close()
  }

  /// Does something for one half of all and then for the other, and prints what that one took.
  private func grow(_ name: String, _ act: (Range<Int>) async throws -> Void) async throws {
    try await act(0..<count / 2)
    let half = await settled()
    try await act(count / 2..<count)
    let all = await settled()
    let number = Double(count - count / 2)
    print("\(name)-allocated \((all.allocated - half.allocated) / number)")
    print("\(name)-resident \((all.resident - half.resident) / number)")
  }

  /// Bytes in use, and bytes that are resident once what is free was given back: the least of a few
  /// looks, as a checkpoint that is being written holds parts of the state twice.
  private func settled() async -> (allocated: Double, resident: Double) {
    var least = (allocated: Double.infinity, resident: Double.infinity)
    for _ in 0..<(count < 100_000 ? 2 : 15) {
      await RealClock().sleep(.milliseconds(100))
      Self.giveBackFreeMemory()
      least.allocated = min(least.allocated, Self.allocatedBytes())
      least.resident = min(least.resident, BacklogStep.residentMebibytes() * 1_048_576)
    }
    return least
  }

  // What follows is not among what Swift sees of the C library.

  static func giveBackFreeMemory() {
    #if canImport(Glibc)
      typealias Trim = @convention(c) (Int) -> CInt
      guard let symbol = dlsym(nil, "malloc_trim") else { return }
      _ = unsafeBitCast(symbol, to: Trim.self)(0)
    #endif
  }

  /// 0 where the system does not tell.
  private static func allocatedBytes() -> Double {
    #if canImport(Glibc)
      typealias Info = @convention(c) (CInt, UnsafeMutablePointer<FILE>) -> CInt
      var (text, size) = (UnsafeMutablePointer<CChar>?.none, 0)
      guard let symbol = dlsym(nil, "malloc_info"), let file = open_memstream(&text, &size) else {
        return 0
      }
      _ = unsafeBitCast(symbol, to: Info.self)(0, file)
      fclose(file)
      defer { free(text) }
      // The sums of all arenas come last: free in bins and at the ends, mapped one by one, all.
      func last(_ marker: String) -> Double {
        guard let text, let line = String(cString: text).range(of: marker, options: .backwards)
        else { return 0 }
        let rest = String(cString: text)[line.upperBound...]
        guard let size = rest.range(of: "size=\"")?.upperBound else { return 0 }
        return Double(rest[size...].prefix { $0.isNumber }) ?? 0
      }
      return last("system type=\"current\"") + last("total type=\"mmap\"")
        - last("total type=\"fast\"") - last("total type=\"rest\"")
    #else
      return 0
    #endif
  }
}

/// A store with one queue that holds much, and rounds of a load that leave it as it was.
final class LargeQueue {
  enum Load: CaseIterable {
    /// FIFO: each group has a message in flight, a tenth of them one more that waits.
    case groups
    /// FIFO: all messages wait in one group.
    case oneGroup
    /// Standard: messages in flight.
    case leased

    func title(_ small: Int, _ large: Int) -> String {
      switch self {
      case .groups: "FIFO, groups: \(small), \(large)"
      case .oneGroup: "FIFO, one group of: \(small), \(large)"
      case .leased: "standard, in flight: \(small), \(large)"
      }
    }
  }

  /// Microseconds per message.
  struct Times {
    var send = 0.0
    var receive = 0.0
    var delete = 0.0
  }

  private let load: Load
  private let count: Int
  private let store: Store
  private let queue: Queue
  private let body: Int
  private let batch: Int
  private let clock = RealClock()
  /// Of `groups`: the message in flight of each.
  private var held: [LeaseHandle?] = []
  private var cursor = 0

  init(
    _ load: Load, _ count: Int, _ durability: Durability, _ body: Int, _ batch: Int,
    _ path: String
  ) async throws {
    (self.load, self.count, self.body, self.batch) = (load, count, body, batch)
    var options = StoreOptions()
    options.durability = durability
    store = try await Store.open(at: path, options: options)
    let isFIFO = load != .leased
    queue = try await store.queue(isFIFO ? "q.fifo" : "q", QueueSettings(isFIFO: isFIFO))
    try await queue.fill(0..<count, body: body) { load == .groups ? "g\($0)" : isFIFO ? "g" : nil }
    switch load {
    case .oneGroup: break
    case .leased: try await queue.lease(count)
    case .groups:
      held = Array(repeating: nil, count: count)
      try await queue.lease(count) { self.hold($0) }
      try await queue.fill(0..<count / 10, body: body) { "g\($0 * 10)" }
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
    var calls: [Times] = []
    for _ in 0..<(batch == 1 ? 25 : 7) {
      var times = Times()
      try await load == .groups ? turn(&times) : cycle(&times)
      calls.append(times)
    }
    func median(_ part: (Times) -> Double) -> Double {
      Spread(calls.map(part)).median / Double(batch)
    }
    return Times(
      send: median(\.send), receive: median(\.receive), delete: median(\.delete))
  }

  /// Sends one more to groups here and there, deletes what is in flight of them, and receives what
  /// that lets go.
  private func turn(_ times: inout Times) async throws {
    var groups: [Int] = []
    for _ in 0..<batch {
      // A prime steps through all of them. Those in which one more waits are left alone.
      repeat { cursor = (cursor + 2_147_483_647) % count } while cursor.isMultiple(of: 10)
      groups.append(cursor)
    }
    let entries = groups.map { SendEntry(content("g\($0)")) }
    try await send(entries, &times)
    try await delete(groups.compactMap { held[$0] }, &times)
    for lease in try await receive(&times) { hold(lease) }
  }

  /// Sends messages to the end, receives as many from the front, and deletes those.
  private func cycle(_ times: inout Times) async throws {
    let entry = SendEntry(content(load == .oneGroup ? "g" : nil))
    try await send(Array(repeating: entry, count: batch), &times)
    try await delete(receive(&times).map(\.message.handle), &times)
  }

  private func content(_ group: String?) -> MessageContent {
    MessageContent(body: [UInt8](repeating: 97, count: body), groupID: group)
  }

  private func send(_ entries: [SendEntry], _ times: inout Times) async throws {
    let began = clock.monotonicNanoseconds()
    let results = try await queue.send(batch: entries)
    times.send += microseconds(since: began)
    for result in results { _ = try result.get() }
  }

  private func receive(_ times: inout Times) async throws -> [Lease] {
    let began = clock.monotonicNanoseconds()
    var leases: [Lease] = []
    while leases.count < batch {
      let found = try await queue.receive(
        maximum: batch - leases.count, wait: .seconds(60), visibilityTimeout: Queue.long)
      guard !found.isEmpty else { throw ValidationError("a receive found nothing.") }
      leases += found
    }
    times.receive += microseconds(since: began)
    return leases
  }

  private func delete(_ handles: [LeaseHandle], _ times: inout Times) async throws {
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
  fileprivate static let long = Duration.seconds(43_200)

  /// Sends a message for each number, four batches at a time.
  fileprivate func fill(
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
  fileprivate func lease(_ count: Int, _ use: (Lease) -> Void = { _ in }) async throws {
    var left = count
    while left > 0 {
      let found = try await receive(
        maximum: min(500, left), wait: .seconds(60), visibilityTimeout: Self.long)
      guard !found.isEmpty else { throw ValidationError("a receive found nothing.") }
      for lease in found { use(lease) }
      left -= found.count
    }
  }
}

/// The median and the quartiles of some values.
struct Spread {
  private let values: [Double]

  init(_ values: [Double]) { self.values = values.sorted() }

  func at(_ fraction: Double) -> Double {
    values.isEmpty ? 0 : values[min(values.count - 1, Int(Double(values.count) * fraction))]
  }
  var first: Double { at(0.25) }
  var median: Double { at(0.5) }
  var third: Double { at(0.75) }
}

func hundredths(_ value: Double) -> String { String(format: "%.2f", value) }
func tenths(_ value: Double) -> String { String(format: "%.1f", value) }

// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import PenstockTools
import Synchronization
import Testing

/// A store with a history, on a simulated disk: 40 messages in several small segments, some of them
/// received, some deleted.
struct Sample {
  static let directory = "/store"
  static let messages = 40
  let disk: SimulatedFileSystem
  /// What the store showed at its end.
  var stateHash: UInt64 = 0
  var lastLSN: UInt64 = 0
  /// Bodies of messages that were not deleted.
  var live: Set<String> = []

  /// - Parameters:
  ///   - closes: whether the last run closes the store; else its process dies.
  ///   - deletes: how many messages are deleted. Some let compaction move others.
  ///   - segmentSize: with larger ones nothing is moved.
  static func make(
    closes: Bool = true, deletes: Int = 0, segmentSize: Int = 64 << 10
  ) throws -> Sample {
    var sample = Sample(disk: SimulatedFileSystem())
    let store = try DrivenStore(sample.disk, segmentSize: segmentSize)
    let queues = try [store.queue("orders"), store.queue("other")]
    for number in 0..<messages {
      let body = Sample.body(number)
      try store.send(body, to: queues[number % 10 == 9 ? 1 : 0])
      sample.live.insert(body)
    }
    if deletes > 0 {
      for body in try store.consume(deletes, of: queues[0]) { sample.live.remove(body) }
    }
    _ = try store.receive(2, from: queues[0])
    sample.stateHash = store.store.stateHash
    sample.lastLSN = store.store.lastLSN
    if closes {
      try store.close()
      return sample
    }
    let copy = sample.copy()
    try store.close()
    return copy
  }

  static func body(_ number: Int) -> String {
    "order \(number) " + String(repeating: "x", count: number % 7 * 700)
  }

  static var options: StoreOptions {
    var options = StoreOptions()
    options.segmentSize = 64 << 10
    // So that messages are parked and segments have indexes.
    options.window = 4
    return options
  }

  static func environment(_ disk: any FileSystem) -> StoreEnvironment {
    StoreEnvironment(
      fileSystem: disk, clock: SimulatedClock(wallMilliseconds: 1_700_000_000_000),
      random: StableRandom(seed: 5))
  }

  var files: [String] {
    get throws { try disk.list(Self.directory).filter { $0 != "LOCK" } }
  }

  var segments: [String] {
    get throws { try disk.list(Self.directory).filter { $0.hasSuffix(".seg") } }
  }

  func path(_ name: String) -> String { Self.directory + "/" + name }

  func size(_ name: String) -> Int { disk.contents(of: path(name))?.count ?? 0 }

  /// A second one, to be damaged.
  func copy() -> Sample {
    let copy = Sample(disk: disk.copy(), stateHash: stateHash, lastLSN: lastLSN, live: live)
    copy.disk.kill()
    return copy
  }

  /// Makes all that was written durable, so that a crash changes nothing of it.
  func settle() throws {
    for name in try files { change(name) { _ in } }
  }

  func change(_ name: String, _ body: (inout [UInt8]) -> Void) {
    var bytes = disk.contents(of: path(name)) ?? []
    body(&bytes)
    disk.replace(path(name), with: bytes)
  }

  var context: ToolContext { Self.context(disk) }

  static func context(
    _ disk: any FileSystem, _ directory: String = Sample.directory
  ) -> ToolContext {
    ToolContext(directory: directory, fileSystem: disk, clock: SimulatedClock())
  }

  /// Opens the store on a copy of the disk: the error, or nil when it opens.
  func refusal() throws -> PenstockError? {
    let copy = copy()
    do {
      let (store, _) = try Store.openDriven(
        at: Self.directory, options: Self.options, environment: Self.environment(copy.disk))
      store.close { _ in }
      return nil
    } catch { return error }
  }

  /// Everything in the directory, to see that a tool changed nothing.
  func image() throws -> [String: [UInt8]] {
    var image: [String: [UInt8]] = [:]
    for name in try disk.list(Self.directory) {
      image[name] = disk.contents(of: path(name))
    }
    return image
  }
}

/// A store whose threads take their turns in a fixed order, so that a run is always the same.
final class DrivenStore {
  let store: Store
  let clock = SimulatedClock(wallMilliseconds: 1_700_000_000_000)
  private let driver: StoreDriver

  init(_ disk: any FileSystem, segmentSize: Int = 64 << 10) throws {
    var options = Sample.options
    options.segmentSize = segmentSize
    let environment = StoreEnvironment(
      fileSystem: disk, clock: clock, random: StableRandom(seed: 5))
    (store, driver) = try Store.openDriven(
      at: Sample.directory, options: options, environment: environment)
    settle()
  }

  /// Lets every thread do what it has to do now.
  func settle() {
    while let worker = driver.due.first { driver.turn(worker) }
  }

  func wait<Value: Sendable>(_ start: (@escaping Completion<Value>) -> Void) throws -> Value {
    let box = Box(Mutex<Result<Value, PenstockError>?>(nil))
    start { result in box.value.withLock { $0 = result } }
    settle()
    return try #require(box.value.withLock { $0 }).get()
  }

  func queue(_ name: String) throws -> QueueID {
    try wait { store.createQueue(name, QueueSettingsChange(), $0) }.id
  }

  func send(_ body: String, to queue: QueueID) throws {
    let entry = SendEntry(MessageContent(body: Array(body.utf8)))
    for result in try wait({ store.send([entry], to: queue, $0) }) { _ = try result.get() }
  }

  func receive(_ count: Int, from queue: QueueID) throws -> [ReceivedMessage] {
    try wait { store.receive(ReceiveRequest(maximumMessages: count), from: queue, $0) }
  }

  /// Receives messages and deletes them; returns their bodies.
  func consume(_ count: Int, of queue: QueueID) throws -> [String] {
    let messages = try receive(count, from: queue)
    for result in try wait({ store.delete(messages.map(\.handle), from: queue, $0) }) {
      try result.get()
    }
    return messages.map { String(decoding: $0.content.body, as: UTF8.self) }
  }

  func close() throws {
    let _: Void = try wait { store.close($0) }
  }
}

private final class Box<Value: ~Copyable & Sendable>: Sendable {
  let value: Value
  init(_ value: consuming Value) { self.value = value }
}

/// Collects lines.
final class Collected {
  var lines: [String] = []
}

extension Inspect {
  func lines() throws -> (lines: [String], damages: Int) {
    let collected = Collected()
    let damages = try run { collected.lines.append($0) }
    return (collected.lines, damages)
  }
}

// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import PenstockTools
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
  static func make(closes: Bool = true, deletes: Int = 0) async throws -> Sample {
    var sample = Sample(disk: SimulatedFileSystem())
    let store = try Store.openBlocking(
      at: directory, options: options, environment: environment(sample.disk))
    let queue = try await store.queue("orders")
    let other = try await store.queue("other")
    for number in 0..<messages {
      let body = Sample.body(number)
      try await (number % 10 == 9 ? other : queue).send(body)
      sample.live.insert(body)
    }
    for lease in try await queue.receive(maximum: deletes) where deletes > 0 {
      try await lease.delete()
      sample.live.remove(lease.text)
    }
    _ = try await queue.receive(maximum: 2)
    sample.stateHash = store.stateHash
    sample.lastLSN = store.lastLSN
    if closes {
      try await store.close()
      return sample
    }
    // The handles of this one are of no further use to the copy.
    let copy = Sample(
      disk: sample.disk.copy(), stateHash: sample.stateHash, lastLSN: sample.lastLSN,
      live: sample.live)
    copy.disk.kill()
    try await store.close()
    return copy
  }

  static func body(_ number: Int) -> String {
    "order \(number) " + String(repeating: "x", count: number % 7 * 700)
  }

  static var options: StoreOptions {
    var options = StoreOptions()
    options.segmentSize = 64 << 10
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

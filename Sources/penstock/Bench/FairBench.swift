// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem
import Synchronization

/// `penstock bench fair`: for how long the messages of quiet tenants wait beside a flood.
struct FairBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fair",
    abstract: "Measure how long quiet tenants wait beside one that floods their queue.",
    discussion: """
      Workers receive a message, hold it for a while and delete it. One tenant has sent a flood \
      before; ten others send a message now and then, so much less than the workers can do. The \
      same load runs without the flood, with it in a fair queue, and with it in one that is not.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Messages of the flood.")
  var flood = 10_000

  @Option(name: .long, help: "Messages of the quiet tenants together, one each 10 milliseconds.")
  var quiet = 200

  @Option(name: .long, help: "For how many milliseconds a worker holds each message.")
  var work = 2

  func validate() throws {
    guard (1...1_000_000).contains(flood), (1...10_000).contains(quiet) else {
      throw ValidationError("--flood must be from 1 to 1000000, --quiet from 1 to 10000.")
    }
    guard (0...1000).contains(work) else { throw ValidationError("--work must be from 0 to 1000.") }
  }

  func run() async throws {
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    print("machine     \(Machine.description)")
    print("durability  written; \(work) ms of work for each message")
    print("")
    print(
      pad("workers", 12) + pad("queue", 22) + lead("p50 ms", 10) + lead("p99 ms", 10)
        + lead("longest", 10) + lead("in all ms", 11))
    for workers in [8, 64] {
      for load in Load.allCases {
        let run = try await measure(load, workers, "\(root)/store")
        removeTree("\(root)/store")
        print(
          pad("\(workers)", 12) + pad(load.rawValue, 22) + lead(tenths(run.waits.at(0.5)), 10)
            + lead(tenths(run.waits.at(0.99)), 10) + lead(tenths(run.waits.at(1)), 10)
            + lead(tenths(run.all), 11))
      }
    }
    print("")
    print(
      """
      From the send of a quiet tenant's message to its receipt; "in all" until everything was
      received and deleted, the flood included.
      """)
  }

  private enum Load: String, CaseIterable {
    case alone = "no flood"
    case fair = "flood, fair"
    case unfair = "flood, not fair"
  }

  private final class Progress: Sendable {
    let waits = Mutex<[Double]>([])
    let left: Mutex<Int>
    init(_ count: Int) { left = Mutex(count) }
  }

  private func measure(
    _ load: Load, _ workers: Int, _ path: String
  ) async throws -> (waits: Spread, all: Double) {
    let (clock, quiet, work) = (RealClock(), quiet, work)
    var options = StoreOptions()
    options.durability = .written
    let store = try await Store.open(at: path, options: options)
    let queue = try await store.queue("q", QueueSettings { $0.isFair = load != .unfair })
    let flood = load == .alone ? 0 : flood
    let entry = SendEntry(MessageContent(body: [], groupID: "flood"))
    for start in stride(from: 0, to: flood, by: 500) {
      let batch = Array(repeating: entry, count: min(500, flood - start))
      for result in try await queue.send(batch: batch) { _ = try result.get() }
    }
    let progress = Progress(flood + quiet)
    let began = clock.monotonicNanoseconds()
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask {
        for number in 0..<quiet {
          let now = clock.monotonicNanoseconds()
          try await queue.send("\(now)", group: "quiet \(number % 10)")
          try await Task.sleep(for: .milliseconds(10))
        }
      }
      for _ in 0..<workers {
        tasks.addTask {
          while progress.left.withLock({ $0 > 0 }) {
            for lease in try await queue.receive(maximum: 1, wait: .milliseconds(50)) {
              if let sent = UInt64(lease.text) {
                let waited = Double(clock.monotonicNanoseconds() - sent) / 1_000_000
                progress.waits.withLock { $0.append(waited) }
              }
              try await Task.sleep(for: .milliseconds(work))
              try await lease.delete()
              progress.left.withLock { $0 -= 1 }
            }
          }
        }
      }
      try await tasks.waitForAll()
    }
    let all = Double(clock.monotonicNanoseconds() - began) / 1_000_000
    try await store.close()
    return (Spread(progress.waits.withLock { $0 }), all)
  }
}

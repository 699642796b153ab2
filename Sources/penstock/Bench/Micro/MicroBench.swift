// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import PenstockSystem

/// Something that is done very often, to be measured by itself.
struct MicroOperation {
  /// In three words or four; `Benchmarks/counts.txt` has it.
  var name: String
  /// Operations in a call.
  var size = 1
  /// Calls in a round, always as many, so that counts are the same in each run.
  var calls = 2000
  /// Bytes that an operation goes over, where its speed is told by that.
  var bytes: Int?
  /// Makes what so many calls need; is not measured.
  var prepare: (Int) async throws -> Void = { _ in }
  /// Does so many calls, and answers something that follows from all of them, so that none can be
  /// left out.
  var run: (Int) async throws -> Int
}

/// `penstock bench micro`: the hot paths, one by one.
struct MicroBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "micro",
    abstract: "Measure the hot paths one by one: time, and with Benchmarks/micro allocations.",
    discussion: """
      Times are the best of all rounds. Allocations, retains and releases are of the whole \
      process, all threads, and the least of all rounds; they are there when \
      Benchmarks/counter.c is preloaded, as Benchmarks/micro does.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Only operations whose names contain this.")
  var only = ""

  @Option(name: .long, help: "Rounds of each operation.")
  var rounds = 10

  @Option(name: .long, help: "Write name, allocations, retains and releases to this file.")
  var counts: String?

  func validate() throws {
    guard (1...1000).contains(rounds) else {
      throw ValidationError("--rounds must be from 1 to 1000.")
    }
  }

  func run() async throws {
    let counters = MicroCounters()
    if counts != nil, counters == nil {
      throw ValidationError("--counts needs the counters: run Benchmarks/micro --counts FILE.")
    }
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    print("machine     \(Machine.description)")
    print("best of \(rounds) rounds; engine and service with durability written, not synced")
    print("")
    print(
      pad("operation", 44) + lead("ns", 10) + lead("cpu ns", 10) + lead("GB/s", 7)
        + (counters == nil
          ? ""
          : lead("allocs", 9) + lead("bytes", 9) + lead("objects", 9) + lead("retains", 9)
            + lead("releases", 9)))
    var lines: [String] = []
    let (engine, service) = (try await MicroEngine(root + "/engine"), try await MicroService(root))
    let all =
      MicroLog().operations + MicroState().operations + MicroStructures().operations
      + MicroWire().operations + service.operations + engine.operations
    for operation in all where only.isEmpty || operation.name.contains(only) {
      ProgressLine.tell(operation.name)
      lines.append(try await measure(operation, counters))
    }
    try await engine.close()
    try await service.close()
    if let counts {
      try Data((lines.joined(separator: "\n") + "\n").utf8).write(
        to: URL(fileURLWithPath: counts))
    }
  }

  private func measure(
    _ operation: MicroOperation, _ counters: MicroCounters?
  ) async throws -> String {
    var sum = 0
    let number = Double(operation.calls * operation.size)
    var (best, processor) = (Double.infinity, Double.infinity)
    // The first round warms up.
    for round in 0...rounds {
      try await operation.prepare(operation.calls)
      let (used, began) = (clock(), RealClock().monotonicNanoseconds())
      sum &+= try await operation.run(operation.calls)
      let took = Double(RealClock().monotonicNanoseconds() - began)
      let spent = Double(clock() - used) * 1e9 / Double(CLOCKS_PER_SEC)
      guard round > 0 else { continue }
      best = min(best, took / number)
      processor = min(processor, spent / number)
    }
    var least: MicroCounters.Counts?
    if let counters {
      for _ in 0..<rounds {
        try await operation.prepare(operation.calls)
        counters.count(true)
        let before = counters.counts
        sum &+= try await operation.run(operation.calls)
        let counted = counters.counts.since(before, each: number)
        counters.count(false)
        least = least.map { $0.least(counted) } ?? counted
      }
    }
    ProgressLine.end()
    let speed = operation.bytes.map { tenths(Double($0) / best) } ?? ""
    let columns =
      least.map {
        lead(hundredths($0.allocations), 9) + lead(whole($0.bytes), 9)
          + lead(hundredths($0.objects), 9) + lead(hundredths($0.retains), 9)
          + lead(hundredths($0.releases), 9)
      } ?? ""
    print(
      pad(operation.name, 44) + lead(tenths(best), 10) + lead(tenths(processor), 10)
        + lead(speed, 7) + columns + (sum == .min ? " " : ""))
    fflush(nil)
    let counted = least ?? .init()
    return [
      operation.name, hundredths(counted.allocations), hundredths(counted.retains),
      hundredths(counted.releases),
    ].joined(separator: "\t")
  }
}

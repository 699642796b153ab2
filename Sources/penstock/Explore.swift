// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import PenstockExplorer
import PenstockSystem
import Synchronization

/// `penstock explore`: the engine's own proof, on a simulated disk.
struct Explore: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Crash the engine on a simulated disk, in every way, and check every promise.",
    discussion: """
      Small histories are explored completely: power is lost before every call to the file system, \
      with every outcome that a disk allows. Large ones are drawn by seed, with faults, full disks \
      and crashes of recoveries. A promise that does not hold ends the run with status 1 and one \
      command that repeats it.
      """)

  @Option(help: "Operations in the longest small history, from 0 to 3.")
  var length = 2

  @Option(help: "Of the longest small histories, explore every so manyth.")
  var stride = 1

  @Option(help: "How many large histories to run.")
  var histories = 10_000

  @Option(help: "Seed of the first large history; the others follow.")
  var seed: UInt64 = 1

  @Option(help: "Go on with further seeds for so many seconds.")
  var seconds: Double?

  @Option(help: "Run only this history, as a failed run printed it.")
  var history: String?

  @Option(help: "Plant a bug, to see it caught. 'list' names them.")
  var canary: String?

  @Option(help: "Threads to use.")
  var threads = 2

  func validate() throws {
    guard (0...3).contains(length) else { throw ValidationError("--length must be from 0 to 3.") }
    guard stride >= 1 else { throw ValidationError("--stride must be at least 1.") }
    guard (0...1_000_000_000).contains(histories) else {
      throw ValidationError("--histories must be from 0 to 1000000000.")
    }
    guard (1...256).contains(threads) else {
      throw ValidationError("--threads must be from 1 to 256.")
    }
    if let seconds, !(0...1_000_000).contains(seconds) {
      throw ValidationError("--seconds must be from 0 to 1000000.")
    }
    if let history, Step.history(history) == nil {
      throw ValidationError("--history '\(history)' cannot be read.")
    }
    if let canary, canary != "list", Canary(rawValue: canary) == nil {
      throw ValidationError("--canary \(canary) is not known; --canary list names them.")
    }
  }

  func run() async throws {
    if canary == "list" {
      for canary in Canary.allCases { print(canary.rawValue) }
      return
    }
    var explorer = Explorer()
    explorer.threads = threads
    explorer.canary = canary.flatMap(Canary.init)
    var report = Report()
    if let history, let steps = Step.history(history) {
      let (tally, failure) = explorer.replay(steps)
      report.add("this history", tally, failure, .zero)
    } else {
      report.exploreFamilies(explorer, length: length, stride: stride)
      report.runSwarm(explorer, seed: seed, count: histories, seconds: seconds)
    }
    report.conclude()
    if report.hasFailed { throw ExitCode.failure }
  }

  private struct Report {
    private var all = Tally()
    private(set) var hasFailed = false

    mutating func exploreFamilies(_ explorer: Explorer, length: Int, stride: Int) {
      print(Self.row(["small histories", "number", "states", "by seed", "distinct", "states/s"]))
      let clock = ContinuousClock()
      for family in Family.all(length: length) {
        let began = clock.now
        let (tally, failure) = explorer.explore(family, stride: stride)
        add(family.name, tally, failure, clock.now - began)
      }
    }

    mutating func runSwarm(_ explorer: Explorer, seed: UInt64, count: Int, seconds: Double?) {
      print("")
      print(Self.row(["large histories", "number", "crashes", "", "", "histories/s"]))
      let clock = ContinuousClock()
      let began = clock.now
      let end = seconds.map { began + .seconds($0) }
      var next = seed
      repeat {
        let start = clock.now
        let (tally, failure) = explorer.swarm(seed: next, count: count)
        let rate = Double(tally.histories) / Self.seconds(clock.now - start)
        print(
          Self.row([
            "seeds from \(next)", "\(tally.histories)", "\(tally.points)", "", "",
            "\(Int(rate))",
          ]))
        note(tally, failure)
        next &+= UInt64(count)
      } while !hasFailed && count > 0 && end.map { clock.now < $0 } ?? false
    }

    mutating func add(_ name: String, _ tally: Tally, _ failure: Failure?, _ time: Duration) {
      let rate = Double(tally.states) / max(Self.seconds(time), 0.001)
      print(
        Self.row([
          name, "\(tally.histories)", "\(tally.states)", "\(tally.sampled)",
          "\(tally.distinct)",
          time == .zero ? "" : "\(Int(rate))",
        ]))
      note(tally, failure)
    }

    private mutating func note(_ tally: Tally, _ failure: Failure?) {
      all.add(tally)
      guard let failure else { return }
      hasFailed = true
      print("\nBROKEN  \(failure)\n")
    }

    func conclude() {
      print("\ninvariant                checked")
      for invariant in Invariant.allCases {
        print(Self.padded(invariant.rawValue, 25) + "\(all.checks.count(invariant))")
      }
      print("")
      for event in Event.allCases {
        if let count = all.checks.events[event] { print("\(count) \(event.rawValue)") }
      }
      print("")
      if all.states > 0 {
        print(
          "\(all.states) crash states were enumerated, \(all.distinct) of them distinct. At "
            + "\(all.capped) of \(all.points) points there were too many to try all.")
      }
      if all.damages > 0 {
        print(
          "\(all.damages) disks were damaged on purpose: \(all.refused) were refused, "
            + "\(all.harmless) showed everything all the same, with damage to what is spare or "
            + "to a message alone \(all.survived) went on.")
      }
      print("Trace hash \(String(all.hash, radix: 16)); the same run gives the same.")
      print(hasFailed ? "A promise was broken." : "All promises held.")
    }

    private static func row(_ cells: [String]) -> String {
      cells.enumerated().map { index, cell in
        index == 0
          ? padded(cell, 25) : String(repeating: " ", count: max(0, 12 - cell.count)) + cell
      }.joined()
    }

    private static func padded(_ text: String, _ width: Int) -> String {
      text + String(repeating: " ", count: max(1, width - text.count))
    }

    private static func seconds(_ duration: Duration) -> Double {
      Double(duration.components.seconds) + Double(duration.components.attoseconds) / 1e18
    }
  }
}

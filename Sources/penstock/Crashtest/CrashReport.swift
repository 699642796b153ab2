// SPDX-License-Identifier: Apache-2.0
import Foundation

/// What a run found: for people to read and keep, and as JSON.
package struct CrashReport: Codable, Sendable {
  /// One phase, or why it was not run.
  package struct Phase: Codable, Sendable {
    package var name: String
    package var skipped: String?
    /// Kills, cuts of power, runs with faults, or damaged copies.
    package var rounds = 0
    package var counts = Ledger.Counts()
    /// Starts that failed: of an undamaged store a failure, of a damaged one the right answer.
    package var refused = 0
    /// System calls that were made to fail.
    package var faults = 0
    package var seconds = 0.0
    /// Why the tool could not go on; what was not looked for by then is not judged.
    package var endedEarly: String?
    package var notes: [String] = []
    /// The first broken promises, in words.
    package var examples: [String] = []

    package init(name: String) { self.name = name }

    /// A start that was refused breaks a promise where nothing was damaged.
    package var isBroken: Bool {
      counts.isBroken || (refused > 0 && name != CrashPhase.damage.rawValue)
    }
  }

  package var seed: String
  package var command: String
  package var version: String
  package var machine: String
  package var directory: String
  package var device: String
  package var durability: String
  package var started: String
  package var interrupted = false
  package var phases: [Phase] = []
  package var kept: String?

  package init(
    seed: UInt64, command: String, version: String, machine: String, directory: String,
    device: String, durability: String, started: String
  ) {
    self.seed = "0x" + String(seed, radix: 16)
    self.command = command
    self.version = version
    self.machine = machine
    self.directory = directory
    self.device = device
    self.durability = durability
    self.started = started
  }

  package var isBroken: Bool { phases.contains { $0.isBroken } }

  /// False when not one phase was run.
  package var hasRun: Bool { phases.contains { $0.skipped == nil } }

  /// 0 when nothing was lost, 1 when something was, 2 when the run cannot say.
  package var exitStatus: Int32 { isBroken ? 1 : isComplete && canSay ? 0 : 2 }

  /// True when every phase that was begun came to its end.
  package var isComplete: Bool { !interrupted && phases.allSatisfy { $0.endedEarly == nil } }

  /// False when nothing was sent that could have been lost: the run says nothing.
  package var canSay: Bool { hasRun && total.acknowledged > 0 }

  package var total: Ledger.Counts { phases.reduce(Ledger.Counts()) { $0 + $1.counts } }

  package var verdict: String {
    let counts = total
    guard hasRun else { return "NOTHING WAS RUN" }
    guard isBroken || canSay else { return "NOTHING IS KNOWN: no message was acknowledged" }
    let partly =
      isComplete
      ? "" : " so far; the run \(interrupted ? "was interrupted" : "could not be completed")"
    guard isBroken else {
      let aside =
        counts.setAside == 0
        ? "" : "; \(counts.setAside) whose bytes were damaged on purpose were set aside and told"
      return "nothing lost of \(counts.acknowledged) acknowledged messages\(partly)\(aside)"
    }
    var parts: [String] = []
    if counts.lost > 0 { parts.append("\(counts.lost) acknowledged messages LOST") }
    if counts.resurrected > 0 { parts.append("\(counts.resurrected) deleted ones CAME BACK") }
    if counts.unknown > 0 { parts.append("\(counts.unknown) UNKNOWN or damaged ones came") }
    let refused = phases.filter { $0.name != CrashPhase.damage.rawValue }.reduce(0) {
      $0 + $1.refused
    }
    if refused > 0 { parts.append("an undamaged store was REFUSED") }
    return parts.joined(separator: ", ")
      + " (in \(phases.filter(\.isBroken).map(\.name).joined(separator: " and ")); of "
      + "\(counts.acknowledged) acknowledged messages)\(partly)"
  }

  /// One JSON object, with sorted keys and the verdict in it.
  package func json() throws -> String {
    struct Outer: Encodable {
      var report: CrashReport
      enum Keys: String, CodingKey { case verdict, broken, totals }
      func encode(to encoder: any Encoder) throws {
        try report.encode(to: encoder)
        var more = encoder.container(keyedBy: Keys.self)
        try more.encode(report.verdict, forKey: .verdict)
        try more.encode(report.isBroken, forKey: .broken)
        try more.encode(report.total, forKey: .totals)
      }
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(Outer(report: self)), as: UTF8.self)
  }

  package var text: String {
    var lines = ["penstock crashtest", ""]
    for (name, value) in [
      ("seed", seed), ("command", command), ("version", version), ("machine", machine),
      ("directory", directory), ("device", device), ("durability", durability),
      ("started", started),
    ] {
      lines.append("  \(name.padded(to: 12))\(value)")
    }
    lines.append("")
    lines.append(
      Self.row([
        "phase", "rounds", "submitted", "acknowl.", "recovered", "deleted", "aside", "lost",
        "dupl.", "resurr.", "unknown", "refused", "seconds",
      ]))
    for phase in phases where phase.skipped == nil {
      let counts = phase.counts
      lines.append(
        Self.row(
          [phase.name]
            + [
              phase.rounds, counts.submitted, counts.acknowledged, counts.recovered,
              counts.deleted + counts.deletedUnanswered, counts.setAside, counts.lost,
              counts.duplicated, counts.resurrected, counts.unknown, phase.refused,
            ].map { "\($0)" } + ["\(Int(phase.seconds.rounded()))"]))
    }
    lines.append("")
    for phase in phases {
      if let reason = phase.skipped { lines.append("  \(phase.name): not run: \(reason)") }
      if let reason = phase.endedEarly { lines.append("  \(phase.name): ENDED EARLY: \(reason)") }
      for note in phase.notes + phase.examples { lines.append("  \(phase.name): \(note)") }
    }
    lines += ["", "Verdict: \(verdict).", ""]
    if let kept { lines += ["The files are kept in \(kept)", ""] }
    lines += ["What this can and cannot show"]
    lines += Self.limits(ran: Set(phases.filter { $0.skipped == nil }.map(\.name)))
    return lines.joined(separator: "\n")
  }

  /// What the phases that were run say about a system, and what none of them can.
  private static func limits(ran: Set<String>) -> [String] {
    var lines: [String] = []
    for phase in CrashPhase.allCases {
      let text = ran.contains(phase.rawValue) ? phase.shows : phase.leavesOpen
      lines.append("  \(phase.rawValue.padded(to: 8))\(text)")
    }
    lines.append(
      "  never   a disk that loses or reorders what it called synced, and a write of half a "
        + "sector: only\n          pulling the plug of a real machine shows those. Runs of one "
        + "seed differ in their timing.")
    return lines
  }

  private static func row(_ cells: [String]) -> String {
    let widths = [-8, 6, 9, 8, 9, 7, 5, 5, 5, 7, 7, 7, 7]
    return "  "
      + zip(cells, widths).map { cell, width in
        width < 0 ? cell.padded(to: -width) : cell.led(to: width)
      }.joined(separator: " ")
  }
}

/// The parts of a run.
package enum CrashPhase: String, CaseIterable, Sendable {
  case kill, power, faults, full, damage

  /// What a run of it says.
  var shows: String {
    switch self {
    case .kill:
      "shows answers before the write, and files that a dead process leaves behind unusable;\n"
        + "          not a missing sync: the kernel keeps what was written"
    case .power:
      "shows a missing sync: what had not reached the device is gone; not a missing flush of\n"
        + "          the device's own cache"
    case .faults:
      "shows whether a failed call is taken for a success; for syncs only where the power can\n"
        + "          be cut; a device that drops pages after a failed sync is not imitated"
    case .full: "shows whether a full disk costs messages, or the way to take them out"
    case .damage: "shows whether damaged files are served as if they were whole"
    }
  }

  /// What is open without it.
  var leavesOpen: String {
    switch self {
    case .kill: "was not run: nothing is known about the death of the process"
    case .power: "was not run: a system that answers before it syncs is not found out"
    case .faults: "was not run: nothing is known about failing calls"
    case .full: "was not run: nothing is known about a full disk"
    case .damage: "was not run: nothing is known about damaged files"
    }
  }
}

extension String {
  fileprivate func padded(to width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }

  fileprivate func led(to width: Int) -> String {
    String(repeating: " ", count: max(0, width - count)) + self
  }
}

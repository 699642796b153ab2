// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockTesting

/// What a run does, after the command line was checked.
package struct CrashSettings: Sendable {
  package var target: Target
  package var seed: UInt64
  package var kills = 20
  /// Cuts of power, runs with faults, and damaged copies of each of the two stores.
  package var rounds = 8
  /// The time that a phase may take; its last drain is allowed to end.
  package var seconds = 300.0

  package init(target: Target, seed: UInt64) {
    self.target = target
    self.seed = seed
  }
}

/// Lines about how far the run is, on standard error, at a modest rate.
final class Progress {
  private let pause: Double
  private var last = Date.distantPast

  init(isTerminal: Bool) { pause = isTerminal ? 0.5 : 5 }

  func say(_ text: String, always: Bool = false) {
    let now = Date()
    guard always || now.timeIntervalSince(last) >= pause else { return }
    last = now
    FileHandle.standardError.write(Data((text + "\n").utf8))
  }
}

/// Runs the phases, one after another, on the thread that calls it.
final class CrashRun {
  /// Messages of one phase at most: the ledger keeps some 60 bytes for each.
  static let messagesPerPhase = 1_000_000
  /// Messages that one round of load sends at most.
  static let messagesPerRound = 4000

  /// Size of the disks whose power is cut; sparse, and copied at every cut.
  static let diskMegabytes = 128

  let settings: CrashSettings
  let directory: String
  let stop: StopFlag
  let progress: Progress
  /// Everything that was mounted, to be unmounted whatever happens.
  var disks: [DiskImage] = []

  init(_ settings: CrashSettings, directory: String, stop: StopFlag, progress: Progress) {
    self.settings = settings
    self.directory = directory
    self.stop = stop
    self.progress = progress
  }

  /// Why a phase cannot be run, or nil.
  func obstacle(_ phase: CrashPhase) -> String? {
    switch phase {
    case .kill: return nil
    case .faults:
      #if os(Linux)
        do throws(CrashtestError) {
          try ChildProcess.run(["strace", "-f", "-qq", "-e", "trace=none", "true"])
          return nil
        } catch { return "it needs a working strace on the PATH: \(error)" }
      #else
        return "it needs Linux"
      #endif
    case .power, .full, .damage:
      guard settings.target.hasDataDirectory else {
        return "the command names no {data} directory"
      }
      return phase == .damage ? nil : DiskImage.obstacle(in: directory)
    }
  }

  /// Runs one phase. What goes wrong in it is in its notes.
  func run(_ phase: CrashPhase) -> CrashReport.Phase {
    var result = CrashReport.Phase(name: phase.rawValue)
    if let reason = obstacle(phase) {
      result.skipped = reason
      progress.say("\(phase.rawValue): not run: \(reason)", always: true)
      return result
    }
    progress.say("\(phase.rawValue): begins", always: true)
    let began = Date()
    let seed = settings.seed ^ FNV.hash(phase.rawValue.utf8)
    do {
      switch phase {
      case .kill: try kill(&result, seed)
      case .power: try power(&result, seed)
      case .faults: try faults(&result, seed)
      case .full: try full(&result, seed)
      case .damage: try damage(&result, seed)
      }
    } catch is Interrupted {
      result.notes.append("interrupted: what was not drained yet is not judged")
    } catch {
      result.endedEarly = "\(error)"
    }
    removeDisks(&result, keep: result.isBroken)
    result.seconds = Date().timeIntervalSince(began)
    let lost = result.counts.lost
    progress.say(
      "\(phase.rawValue): \(result.rounds) rounds, \(result.counts.acknowledged) acknowledged, "
        + "\(lost) lost", always: true)
    return result
  }

  private func remove(_ disk: DiskImage) throws {
    try disk.discard()
    disks.removeAll { $0 === disk }
  }

  /// Unmounts what a phase left; images stay when they are evidence.
  private func removeDisks(_ result: inout CrashReport.Phase, keep: Bool) {
    for disk in disks {
      do throws(CrashtestError) {
        if keep { try disk.unmount() } else { try disk.discard() }
      } catch {
        result.notes.append("could not clean up: \(error)")
      }
    }
    disks = []
  }

  func path(_ name: String) -> String { "\(directory)/\(name)" }

  // MARK: Pieces of phases

  /// A phase on one store: its ledger, its clock, its drains.
  final class Story {
    let run: CrashRun
    let seed: UInt64
    let random: StableRandom
    let ledger = SharedLedger()
    let deadline: Date
    let log: String
    var leasesEnd = Date()
    var refusedDeletes = 0
    /// Set when everything was looked for: what is missing from then on is lost.
    var isJudged = false

    init(_ run: CrashRun, _ name: String, seed: UInt64) {
      self.run = run
      self.seed = seed
      random = StableRandom(seed: seed)
      deadline = Date().addingTimeInterval(run.settings.seconds)
      log = run.path("\(name).log")
    }

    var isOver: Bool {
      run.stop.isSet || Date() > deadline
        || ledger.with { $0.count } > CrashRun.messagesPerPhase
    }

    func start(
      _ data: String, wrapper: [String] = [], seconds: Double = RunningServer.startSeconds
    ) throws -> RunningServer {
      try RunningServer.start(
        run.settings.target, data: data, log: log, wrapper: wrapper, seconds: seconds,
        stop: run.stop)
    }

    /// Starts the server and kills it a moment later, up or not.
    func killWhileStarting(_ data: String) throws {
      let process = try RunningServer.spawn(run.settings.target, data: data, log: log).process
      poll(seconds: Double(random.below(80)) / 1000) { run.stop.isSet }
      process.kill()
    }

    /// Load until `then` returns, which ends the server or leaves it.
    func load(
      _ server: RunningServer, round: Int, limit: Int = CrashRun.messagesPerRound,
      shape: Load.Shape = .mixed, while then: (StopFlag) throws -> Void
    ) rethrows {
      let load = Load(
        endpoint: server.endpoint, queue: server.queue, ledger: ledger, seed: seed, round: round,
        limit: limit, shape: shape)
      let stop = StopFlag()
      // Whatever is thrown, leases may have been taken.
      defer { leasesEnd = Date().addingTimeInterval(Double(Load.longestLease) + 0.3) }
      try load.run(stop: stop) { try then(stop) }
    }

    /// Lets the load go on for a random time: most often short, sometimes longer.
    func waitAtRandom() {
      let longest = [0.05, 0.3, 0.3, 1.0][random.below(4)]
      let seconds = 0.01 + longest * Double(random.below(1000)) / 1000
      poll(seconds: seconds) { run.stop.isSet }
    }

    /// Takes everything out, and adds what went wrong to the notes. False if the server failed.
    @discardableResult
    func drain(_ server: RunningServer, _ result: inout CrashReport.Phase) throws -> Bool {
      let drain = Drain(server, ledger, seed: seed, leasesEnd: leasesEnd)
      let found = drain.run(stop: run.stop, until: Date().addingTimeInterval(Drain.longest))
      refusedDeletes += found.refusedDeletes
      if found.isCutShort {
        throw CrashtestError("the queue was not empty within \(Int(Drain.longest)) s")
      }
      guard let failure = found.failure else { return true }
      result.notes.append("the server stopped answering while it was emptied: \(failure)")
      return false
    }

    /// Looks at some messages, and gives them back.
    func sample(_ server: RunningServer) {
      let client = SQSClient(server.endpoint)
      do throws(NoAnswer) {
        for _ in 0..<5 {
          let asked = ledger.with { $0.mark() }
          let messages = try client.receive(server.queue, maximum: 10, visibility: 1, wait: 0)
          guard let messages, !messages.isEmpty else { return }
          for message in messages {
            _ = ledger.take(message, seed: seed, asked: asked, draining: false)
          }
        }
      } catch {}
    }

    /// Starts once more and empties the queue: what is missing then is lost.
    func finish(_ data: String, _ result: inout CrashReport.Phase) throws {
      // A server that dies while it is emptied gets a second chance to bring the rest.
      for attempt in 1...2 {
        guard !run.stop.isSet else { throw Interrupted() }
        do {
          let server = try start(data)
          defer { server.process.kill() }
          if try drain(server, &result) || attempt == 2 { break }
        } catch let refusal as RunningServer.Refusal {
          result.refused += 1
          result.notes.append("the last start was refused: \(refusal.reason)")
          break
        }
      }
      isJudged = true
    }

    /// Takes the counts over. A run that was interrupted has not looked for everything: nothing
    /// that it misses is called lost.
    func close(_ result: inout CrashReport.Phase) {
      var ledger = self.ledger.copy
      if run.stop.isSet || !isJudged { ledger.forgetMissing() }
      result.counts = result.counts + ledger.counts
      result.examples += ledger.examples
    }
  }

  // MARK: Kill

  private func kill(_ result: inout CrashReport.Phase, _ seed: UInt64) throws {
    let story = Story(self, "kill", seed: seed)
    defer { story.close(&result) }
    let data = path("kill-data")
    for round in 1...settings.kills where !story.isOver {
      // Creation and recovery may be killed as well; what they did until then must do no harm.
      if story.random.chance(1, of: 6) { try story.killWhileStarting(data) }
      let server: RunningServer
      do { server = try story.start(data) } catch let refusal as RunningServer.Refusal {
        result.refused += 1
        result.notes.append("round \(round): the start was refused: \(refusal.reason)")
        break
      }
      defer { server.process.kill() }
      try check(story, server, &result)
      story.load(server, round: round) { _ in
        story.waitAtRandom()
        server.process.kill()
      }
      result.rounds = round
      tell("kill", story, round, settings.kills)
    }
    noteTime(&result, settings.kills)
    try story.finish(data, &result)
  }

  /// After a restart: everything in one of five, else a few messages.
  private func check(
    _ story: Story, _ server: RunningServer, _ result: inout CrashReport.Phase
  ) throws {
    if story.random.chance(1, of: 5) {
      try story.drain(server, &result)
    } else {
      story.sample(server)
    }
  }

  private func tell(_ phase: String, _ story: Story, _ round: Int, _ rounds: Int) {
    let counts = story.ledger.with { $0.count }
    progress.say("\(phase): round \(round) of \(rounds), \(counts) messages sent")
  }

  private func noteTime(_ result: inout CrashReport.Phase, _ wanted: Int) {
    guard result.rounds < wanted, result.refused == 0, !stop.isSet else { return }
    result.notes.append(
      "\(result.rounds) of \(wanted) rounds: the time of --seconds was over, or "
        + "\(Self.messagesPerPhase) messages were sent")
  }

  // MARK: Power

  /// The server runs on a small disk. In the middle of the load everything stops, the disk as it
  /// is is copied without the pages that were not written back, and the copy is the next disk.
  private func power(_ result: inout CrashReport.Phase, _ seed: UInt64) throws {
    let story = Story(self, "power", seed: seed)
    defer { story.close(&result) }
    var disk = try DiskImage.make(
      "power-0", in: directory, megabytes: Self.diskMegabytes)
    disks.append(disk)
    result.notes.append(
      "ran on an ext4 image of \(Self.diskMegabytes) MiB in the directory, cut off as it was")
    for round in 1...settings.rounds where !story.isOver {
      let server: RunningServer
      do { server = try story.start(disk.mountPoint + "/data") } catch let refusal
        as RunningServer.Refusal
      {
        result.refused += 1
        result.notes.append("round \(round): the start was refused: \(refusal.reason)")
        break
      }
      defer { server.process.kill() }
      try check(story, server, &result)
      var next: DiskImage?
      try story.load(server, round: round, limit: 1000) { _ in
        story.waitAtRandom()
        next = try cutPower(server, disk, "power-\(round)")
      }
      guard let next else { break }
      try remove(disk)
      disk = next
      result.rounds = round
      tell("power", story, round, settings.rounds)
    }
    noteTime(&result, settings.rounds)
    try story.finish(disk.mountPoint + "/data", &result)
  }

  /// Stops the server where it is, copies its disk as a loss of power would leave it, and ends it.
  private func cutPower(
    _ server: RunningServer, _ disk: DiskImage, _ name: String, isTraced: Bool = false
  ) throws -> DiskImage {
    // Every answer that a client ever gets was sent before this returns, so before the copy.
    guard server.process.freeze(isTraced: isTraced) else {
      throw CrashtestError("the server's threads could not be stopped")
    }
    let next = try disk.copyAfterPowerLoss(name, in: directory)
    disks.append(next)
    server.process.kill()
    return next
  }

  // MARK: Faults

  /// Calls that are made to fail together and how.
  private struct Fault {
    var calls: String
    var error: String
    /// The first call that fails is at most this one, counted by thread; nil lets all fail from a
    /// moment in the middle of the load on.
    var latest: Int?
  }

  /// Every three in a row have one where all syncs fail: an injected fault drops no pages, so a
  /// single one would be made good by the next sync of any thread.
  private static let faults = [
    Fault(calls: syncs, error: "EIO"),
    Fault(calls: writes, error: "EIO", latest: 120),
    Fault(calls: "?rename,?renameat,?renameat2,?ftruncate,?fallocate", error: "EIO", latest: 12),
    Fault(calls: syncs, error: "EIO"),
    Fault(calls: writes, error: "ENOSPC", latest: 120),
    Fault(calls: syncs, error: "EIO", latest: 15),
  ]
  private static let syncs = "?fdatasync,?fsync,?msync,?sync_file_range"
  private static let writes = "?pwrite64,?pwritev,?pwritev2"

  /// Makes calls of the server fail, and ends it soon after; with a cut of power if that can be
  /// done here, because a failed sync that is ignored costs nothing as long as the kernel lives.
  private func faults(_ result: inout CrashReport.Phase, _ seed: UInt64) throws {
    let story = Story(self, "faults", seed: seed)
    defer { story.close(&result) }
    var disk: DiskImage?
    if obstacle(.power) == nil {
      let first = try DiskImage.make("faults-0", in: directory, megabytes: Self.diskMegabytes)
      disks.append(first)
      disk = first
      result.notes.append("each run with faults ended with a cut of power")
    } else {
      result.notes.append(
        "each run with faults ended with a kill, so a failed sync that is ignored does not show")
    }
    var data: String { disk.map { $0.mountPoint + "/data" } ?? path("faults-data") }
    var refusedUnderFault = 0
    var runsWithFaults = 0
    for round in 1...settings.rounds where !story.isOver {
      // The kinds take turns from a random one on, so that few rounds reach many.
      let fault = Self.faults[(round + Int(seed % 6)) % Self.faults.count]
      let trace = path("faults.strace")
      unlink(trace)
      func strace(when: String) -> [String] {
        [
          "strace", "-f", "-qq", "-o", trace, "-e", "trace=\(fault.calls)", "-e", "signal=none",
          "-e", "status=failed", "-e", "inject=\(fault.calls):error=\(fault.error):when=\(when)",
        ]
      }
      var wrapper: [String] = []
      if let latest = fault.latest {
        let forEver = story.random.chance(1, of: 2) ? "+" : ""
        wrapper = strace(when: "\(1 + story.random.below(latest))\(forEver)")
      }
      do {
        // A server that cannot come up under its fault is not waited for long.
        let server = try story.start(
          data, wrapper: wrapper, seconds: wrapper.isEmpty ? RunningServer.startSeconds : 5)
        var tracer: ChildProcess?
        defer {
          server.process.kill()
          tracer?.kill()
        }
        var next: DiskImage?
        try story.load(server, round: round, limit: 1500) { _ in
          if wrapper.isEmpty {
            story.waitAtRandom()
            let processes = server.process.members.flatMap { ["-p", "\($0)"] }
            tracer = try ChildProcess(strace(when: "1+") + processes, log: path("strace.log"))
          }
          poll(seconds: 2, every: 0.05) { stop.isSet || Self.injected(trace) > 0 }
          // Time for answers that should not have been given.
          poll(seconds: 0.3) { stop.isSet }
          if let disk {
            next = try cutPower(server, disk, "faults-\(round)", isTraced: !wrapper.isEmpty)
          } else {
            server.process.kill()
          }
        }
        if let old = disk, let next {
          try remove(old)
          disk = next
        }
      } catch is RunningServer.Refusal {
        // Allowed: the fault came while it started.
        refusedUnderFault += 1
      }
      let injected = Self.injected(trace)
      result.faults += injected
      runsWithFaults += injected > 0 ? 1 : 0
      // Nothing fails from here on: what was acknowledged has to be there.
      do {
        let server = try story.start(data)
        defer { server.process.kill() }
        try check(story, server, &result)
      } catch let refusal as RunningServer.Refusal {
        result.refused += 1
        result.notes.append(
          "round \(round): refused after \(fault.error) of \(fault.calls): \(refusal.reason)")
        break
      }
      result.rounds = round
      tell("faults", story, round, settings.rounds)
    }
    noteTime(&result, settings.rounds)
    result.notes.append(
      "\(result.faults) system calls were made to fail, in \(runsWithFaults) of "
        + "\(result.rounds) runs")
    if refusedUnderFault > 0 {
      result.notes.append("\(refusedUnderFault) starts ended by the fault itself, as they may")
    }
    if result.faults == 0, result.rounds > 0 {
      result.notes.append("NO CALL FAILED: the server uses none of those; this phase shows nothing")
    }
    try story.finish(data, &result)
  }

  /// Calls that strace made to fail so far.
  private static func injected(_ trace: String) -> Int {
    guard let data = FileManager.default.contents(atPath: trace) else { return 0 }
    return String(decoding: data, as: UTF8.self).split(separator: "\n")
      .count { $0.hasSuffix("(INJECTED)") }
  }
}

// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockTesting

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The phases in which the files, not the process, are in trouble.
extension CrashRun {
  // MARK: Full

  /// Fills a small disk until sends are refused, kills, and takes everything out while the disk is
  /// still full; then once more, to see that what was deleted stays away.
  func full(_ result: inout CrashReport.Phase, _ seed: UInt64) throws {
    let story = Story(self, "full", seed: seed)
    let megabytes = 32
    let disk = try DiskImage.make("full", in: directory, megabytes: megabytes)
    disks.append(disk)
    let data = disk.mountPoint + "/data"
    let filler = disk.mountPoint + "/filler"
    do {
      let server = try story.start(data)
      defer { server.process.kill() }
      // Twice what the disk can hold at 8 KB a message: a bound, not a goal.
      story.load(server, round: 1, limit: megabytes * 250, shape: .fill) { _ in
        var last = -1
        poll(seconds: max(1, story.deadline.timeIntervalSinceNow), every: 1) {
          let sent = story.ledger.with { $0.count }
          defer { last = sent }
          progress.say("full: \(sent) messages sent")
          return stop.isSet || sent == last
        }
      }
      let rejected = story.ledger.with { $0.counts.rejected }
      result.notes.append(
        rejected > 0
          ? "sends were refused when the disk was full"
          : "NO SEND WAS REFUSED: the disk was not filled; this phase shows little")
      Self.fill(filler)
      server.process.kill()
      Self.fill(filler)
    } catch let refusal as RunningServer.Refusal {
      result.notes.append(
        "it does not start on an empty disk of \(megabytes) MiB: \(refusal.reason)")
      return
    }
    defer { story.close(&result) }
    for attempt in 1...2 {
      guard !stop.isSet else { throw Interrupted() }
      do {
        let server: RunningServer
        do { server = try story.start(data) } catch let refusal as RunningServer.Refusal {
          guard attempt == 1 else { throw refusal }
          result.notes.append("it does not start while the disk is full: \(refusal.reason)")
          unlink(filler)
          server = try story.start(data)
        }
        defer { server.process.kill() }
        if attempt == 1, FileManager.default.fileExists(atPath: filler) { Self.fill(filler) }
        try story.drain(server, &result)
        result.rounds = attempt
      } catch let refusal as RunningServer.Refusal {
        result.refused += 1
        result.notes.append("the start was refused: \(refusal.reason)")
        break
      }
    }
    story.isJudged = true
    if story.refusedDeletes > 0 {
      result.notes.append("\(story.refusedDeletes) deletes were refused while the disk was full")
    }
  }

  /// Appends to a file until not one byte more fits.
  private static func fill(_ path: String) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { return }
    defer { _ = close(descriptor) }
    let bytes = [UInt8](repeating: 0x66, count: 1 << 20)
    for size in [1 << 20, 4096, 1] {
      while bytes.withUnsafeBytes({ write(descriptor, $0.baseAddress, size) }) > 0 {}
    }
    _ = fsync(descriptor)
  }

  // MARK: Damage

  /// Makes a store that was closed and one that was killed, damages copies of them, one piece of
  /// damage each, and starts the server on each copy.
  func damage(_ result: inout CrashReport.Phase, _ seed: UInt64) throws {
    var served = Served()
    for (number, isKilled) in [false, true].enumerated() where !stop.isSet {
      let name = isKilled ? "killed" : "closed"
      let story = Story(self, "damage-\(name)", seed: seed &+ UInt64(number))
      let data = path("damage-\(name)")
      let server = try story.start(data)
      defer { server.process.kill() }
      var isClosed = false
      story.load(server, round: 1) { _ in
        // Short enough that the producers are busy to the end.
        poll(seconds: 0.2) { stop.isSet }
      }
      if isKilled {
        // The last commit gets its witness when the log is idle for a tenth of a second.
        poll(seconds: 0.5) { stop.isSet }
        server.process.kill()
      }
      if !isKilled { isClosed = server.process.stop() }
      if !isKilled, !isClosed { result.notes.append("SIGTERM did not end the server") }
      // Once without damage: what is missing then is no fault of the damage.
      for copy in 0...settings.rounds where !story.isOver {
        try judge(
          copy: copy, of: data, name: name, isKilled: isKilled || !isClosed, story, &result,
          &served)
        progress.say("damage: copy \(copy) of \(settings.rounds) of the \(name) store")
      }
    }
    result.notes.append(
      "\(result.rounds) damaged copies: \(result.refused) refused, \(served.whole) served whole, "
        + "\(served.told) served but for messages that were set aside and told")
  }

  /// Damaged copies that were served.
  private struct Served {
    /// Everything was there.
    var whole = 0
    /// What was not there the server named as damaged.
    var told = 0
  }

  /// Damages one copy, starts it, and holds what it serves against the ledger of the original.
  private func judge(
    copy number: Int, of data: String, name: String, isKilled: Bool, _ original: Story,
    _ result: inout CrashReport.Phase, _ served: inout Served
  ) throws {
    let copy = path("damage-\(name)-\(number)")
    try ChildProcess.run(["cp", "-Rp", data, copy])
    let newest = try Damage.newestSegment(copy)
    var damage: Damage?
    if number > 0 {
      damage = try Damage.apply(to: copy, original.random)
      result.rounds += 1
    }
    let text = "\(name) store, " + (damage?.text ?? "no damage")
    let story = Story(self, "damage-\(name)-\(number)", seed: original.seed)
    story.ledger.with { [base = original.ledger.copy] in $0 = base }
    story.leasesEnd = original.leasesEnd
    var keep = false
    var setAside = 0
    defer {
      if !keep {
        try? FileManager.default.removeItem(atPath: copy)
        unlink(story.log)
      }
    }
    do {
      let server = try story.start(copy)
      defer { server.process.kill() }
      try story.drain(server, &result)
      if let told = server.setAside() {
        setAside = told
      } else if settings.target.isPenstock {
        result.notes.append("\(text): the server's metrics could not be read")
      }
    } catch let refusal as RunningServer.Refusal {
      if damage == nil {
        result.notes.append("\(text): REFUSED: \(refusal.reason)")
        result.counts.lost += original.ledger.with { $0.missing }
        keep = true
      } else {
        result.refused += 1
      }
      return
    }
    guard !stop.isSet else { return }
    var counts = story.ledger.copy.counts
    if let damage { counts.setAside(min(setAside, damage.mostMessages)) }
    if counts.isBroken {
      keep = true
      let place = damage != nil && damage?.file == newest ? " (the newest segment)" : ""
      result.examples.append(
        "\(text)\(place): served, \(counts.lost) lost without a word besides "
          + "\(counts.setAside) set aside, \(counts.resurrected) came back, "
          + "\(counts.unknown) unknown")
    } else if counts.setAside > 0 {
      served.told += 1
    } else if damage != nil {
      served.whole += 1
    }
    result.counts = result.counts + counts
  }
}

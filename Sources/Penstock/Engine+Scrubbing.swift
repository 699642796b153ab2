// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

// Damage is looked for where nobody reads: by the keeper, a sealed segment after the other at the
// pace that was asked for, and by `verify`, all at once. Neither changes anything.

extension Engine {
  /// Verifies the next sealed segment, when it is time.
  func scrub(_ keeper: inout Keeper) -> Rest {
    guard options.scrubBytesPerSecond > 0 else { return .untilRung }
    let now = clock.monotonicNanoseconds()
    guard now >= keeper.scrubsAt else { return .atMost(nanoseconds: keeper.scrubsAt - now) }
    let sealed = sealedSegments
    let last = keeper.scrubbed
    let next = last.flatMap { last in sealed.keys.filter { $0 > last }.min() } ?? sealed.keys.min()
    guard let next, let info = sealed[next] else { return .untilRung }
    keeper.scrubbed = next
    _ = damage(in: next)
    let seconds = Double(info.bytes) / Double(options.scrubBytesPerSecond)
    let pause = UInt64(min(seconds, 86_400) * 1e9)
    keeper.scrubsAt = now + pause
    return .atMost(nanoseconds: pause)
  }

  /// Reads every sealed segment and both checkpoints.
  func verify() throws(PenstockError) -> VerifyReport {
    let began = clock.monotonicNanoseconds()
    var report = VerifyReport()
    let sealed = sealedSegments
    for segment in sealed.keys.sorted() {
      if let refusal = shared.withLock({ $0.refusal }) { throw refusal }
      if let text = damage(in: segment) { report.damage.append(text) }
      report.segments += 1
      report.bytes += sealed[segment]?.bytes ?? 0
    }
    for checkpoint in log.checkpoints {
      do throws(SystemError) {
        if let text = try log.damage(in: checkpoint) { report.damage.append(text) }
      } catch {
        throw PenstockError(.inputOutput, error.description)
      }
      report.checkpoints += 1
      report.bytes += checkpoint.bytes
    }
    report.duration = .nanoseconds(Int64(clamping: clock.monotonicNanoseconds() &- began))
    return report
  }

  private var sealedSegments: [UInt32: SegmentInfo] {
    let written = shared.withLock { $0.writtenSegment }
    return log.segments.filter { $0.key < written }
  }

  /// Reads a sealed segment; answers what is wrong with it, nil when it is sound or gone.
  private func damage(in segment: UInt32) -> String? {
    do throws(LogError) { try log.scan(segment) { _, _ in } } catch {
      guard log.segments[segment] != nil else { return nil }
      let isNews = shared.withLock { $0.damagedSegments.insert(segment).inserted }
      if isNews {
        options.log?(
          "a check of the log found damage: \(error). Messages there are set aside when they are "
            + "read; `penstock verify` tells more")
      }
      return "\(error)"
    }
    return nil
  }
}

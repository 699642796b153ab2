// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSystem
import Testing

@testable import penstock

/// A benchmark of a store that breaks its promises has to fail: each of these plants a bug.
@Suite struct WorkloadChecks {
  private func workload(_ kind: Workload.Kind) -> Workload {
    Workload(
      kind: kind, producers: 2, consumers: 2, batch: 10, body: 32, seconds: 0.1, warmUp: 0,
      rate: nil, groups: 2, messages: 1000, durability: .synced)
  }

  private func measure(
    _ kind: Workload.Kind, _ plant: (inout StoreEnvironment) -> Void
  ) async throws {
    let path = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-bench-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    var environment = StoreEnvironment()
    plant(&environment)
    _ = try await WorkloadRun.measure(workload(kind), in: path, environment: environment)
  }

  private func measureOverHTTP(
    _ work: WireWork, _ plant: (inout StoreEnvironment) -> Void
  ) async throws {
    var environment = StoreEnvironment()
    plant(&environment)
    try await ServerFixture.run(environment: environment) { fixture in
      let target = WireTarget("x", LoadAddress(host: "127.0.0.1", port: fixture.port))
      let workload = workload(work.kind)
      try await ServerFixture.onThread { _ = try WireRun.measure(work, workload, on: target) }
      #expect(fixture.store.queueNames().isEmpty)
    }
  }

  @Test func aStoreThatIsRightPasses() async throws {
    try await measure(.send) { _ in }
    try await measure(.groups) { _ in }
    try await measureOverHTTP(.groups) { _ in }
    try await measureOverHTTP(.receive) { _ in }
  }

  @Test func answersThatNoSyncCameBeforeAreFound() throws {
    try WorkloadRun.check(syncs: 25, of: 100, atOnce: 4)
    let failure = #expect(throws: BenchFailure.self) {
      try WorkloadRun.check(syncs: 24, of: 100, atOnce: 4)
    }
    #expect(failure?.description.contains("were acknowledged as synced with 24 syncs") == true)
  }

  @Test func anotherOrderWithinAGroupIsFound() async {
    let failure = await #expect(throws: BenchFailure.self) {
      try await measure(.groups) { $0.plantedBug = .receivesNewestFirst }
    }
    #expect(failure?.description.contains("was due") == true)
    let served = await #expect(throws: BenchFailure.self) {
      try await measureOverHTTP(.groups) { $0.plantedBug = .receivesNewestFirst }
    }
    #expect(served?.description.contains("was due") == true)
  }

  @Test func whatIsGoneAfterAStartIsFound() async {
    let failure = await #expect(throws: BenchFailure.self) {
      try await measure(.send) { environment in
        environment.replaying = { entry in
          if case .sent = entry.record { 0 } else { 1 }
        }
      }
    }
    #expect(failure?.description.contains("acknowledged and not deleted") == true)
  }
}

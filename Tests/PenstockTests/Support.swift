// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Runs `body` with a fresh directory that is removed afterwards.
func withTemporaryDirectory<Result>(
  _ body: (String) async throws -> Result
) async throws -> Result {
  let directory = FileManager.default.temporaryDirectory
    .appendingPathComponent("penstock-\(UUID().uuidString)").path
  defer { try? FileManager.default.removeItem(atPath: directory) }
  return try await body(directory)
}

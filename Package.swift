// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

let common: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]
/// The engine targets depend on the toolchain alone and mark every unsafe expression.
let engine = common + [.strictMemorySafety()]

/// A product of a package that only the server side needs: an embedder who writes `traits: []`
/// resolves none of them.
func server(_ product: String, _ package: String) -> Target.Dependency {
  .product(name: product, package: package, condition: .when(traits: ["Server"]))
}

let package = Package(
  name: "penstock",
  products: [
    .library(name: "Penstock", targets: ["Penstock"]),
    .library(name: "PenstockCodable", targets: ["PenstockCodable"]),
    .library(name: "PenstockTesting", targets: ["PenstockTesting"]),
    .library(name: "PenstockServer", targets: ["PenstockServer"]),
    .executable(name: "penstock", targets: ["penstock"]),
  ],
  traits: [
    .default(enabledTraits: ["Server"]),
    .trait(name: "Server", description: "The SQS-compatible server and the command line."),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.0"),
    .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.0"),
    .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.0"),
    .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log.git", from: "1.16.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
  ],
  targets: [
    .target(name: "CPenstock"),
    .target(name: "PenstockSystem", dependencies: ["CPenstock"], swiftSettings: engine),
    .target(name: "PenstockLog", dependencies: ["PenstockSystem"], swiftSettings: engine),
    .target(name: "PenstockCore", dependencies: ["PenstockSystem"], swiftSettings: engine),
    .target(
      name: "Penstock", dependencies: ["PenstockSystem", "PenstockLog", "PenstockCore"],
      swiftSettings: engine),
    .target(name: "PenstockCodable", dependencies: ["Penstock"], swiftSettings: common),
    .target(
      name: "PenstockTesting", dependencies: ["PenstockSystem", "Penstock"],
      exclude: ["README.md"], swiftSettings: engine),
    .target(
      name: "PenstockExplorer", dependencies: ["PenstockTesting", "PenstockSystem", "Penstock"],
      swiftSettings: engine),
    .target(
      name: "PenstockTools",
      dependencies: ["Penstock", "PenstockLog", "PenstockCore", "PenstockSystem"],
      swiftSettings: engine),
    .target(
      name: "PenstockSQS",
      dependencies: ["Penstock", server("Crypto", "swift-crypto")], swiftSettings: common),
    .target(
      name: "PenstockServer",
      dependencies: [
        "PenstockSQS", "Penstock", "PenstockSystem",
        server("NIOCore", "swift-nio"), server("NIOPosix", "swift-nio"),
        server("NIOHTTP1", "swift-nio"), server("NIOSSL", "swift-nio-ssl"),
        server("Logging", "swift-log"),
        server("ServiceLifecycle", "swift-service-lifecycle"),
      ],
      swiftSettings: common),
    // System calls that the toolchain's Glibc module lacks, for the load generator.
    .systemLibrary(name: "CEpoll"),
    .executableTarget(
      name: "penstock",
      dependencies: [
        "CEpoll", "PenstockServer", "PenstockSQS", "PenstockExplorer", "PenstockTools", "Penstock",
        "PenstockLog", "PenstockCore", "PenstockSystem", "PenstockTesting",
        server("NIOCore", "swift-nio"), server("NIOPosix", "swift-nio"),
        server("ArgumentParser", "swift-argument-parser"), server("Logging", "swift-log"),
        server("ServiceLifecycle", "swift-service-lifecycle"),
        server("UnixSignals", "swift-service-lifecycle"),
      ],
      swiftSettings: common),

    .executableTarget(
      name: "two-doors",
      dependencies: [
        "PenstockServer", "Penstock", server("Logging", "swift-log"),
        server("UnixSignals", "swift-service-lifecycle"),
      ],
      path: "Examples/two-doors", swiftSettings: common),

    .testTarget(
      name: "PenstockLogTests",
      dependencies: ["PenstockLog", "PenstockSystem", "PenstockCore", "PenstockTesting"],
      exclude: ["Fixtures"], swiftSettings: common),
    .testTarget(
      name: "PenstockCoreTests",
      dependencies: ["PenstockCore", "Penstock", "PenstockSystem", "PenstockTesting"],
      swiftSettings: common),
    .testTarget(
      name: "PenstockTests",
      dependencies: ["Penstock", "PenstockCodable", "PenstockSystem", "PenstockTesting"],
      swiftSettings: common),
    .testTarget(
      name: "PenstockTestingTests",
      dependencies: ["PenstockTesting", "PenstockSystem", "Penstock"], swiftSettings: common),
    .testTarget(
      name: "PenstockSQSTests", dependencies: ["PenstockSQS", "Penstock", "PenstockTesting"],
      swiftSettings: common),
    .testTarget(
      name: "PenstockServerTests",
      dependencies: [
        "penstock", "PenstockServer", "Penstock", "PenstockSystem", "PenstockTesting",
        server("ArgumentParser", "swift-argument-parser"), server("Logging", "swift-log"),
        server("ServiceLifecycle", "swift-service-lifecycle"),
      ],
      swiftSettings: common),
    .testTarget(
      name: "PenstockExplorerTests",
      dependencies: ["PenstockExplorer", "Penstock", "PenstockSystem", "PenstockTesting"],
      swiftSettings: common),
    .testTarget(
      name: "PenstockToolsTests",
      dependencies: [
        "PenstockTools", "PenstockLog", "PenstockSystem", "Penstock", "PenstockTesting",
      ],
      swiftSettings: common),
    .testTarget(name: "TidyTests", swiftSettings: common),
  ]
)

// The fuzz targets need the sanitizers' flags, which no other build may carry: they are there for
// `Fuzz/run` alone, which sets this.
if Context.environment["PENSTOCK_FUZZ"] != nil {
  let swiftFlags: SwiftSetting = .unsafeFlags(
    ["-sanitize=address", "-assert-config", "Debug", "-Xfrontend", "-sanitize=fuzzer"])
  let cFlags: CSetting = .unsafeFlags(["-fsanitize=address,fuzzer-no-link"])
  for target in package.targets where target.type == .regular {
    target.swiftSettings = (target.swiftSettings ?? []) + [swiftFlags]
    target.cSettings = (target.cSettings ?? []) + [cFlags]
  }
  let linked: LinkerSetting = .unsafeFlags(["-sanitize=address"])
  package.targets += [
    .target(name: "CFuzzer", path: "Fuzz/CFuzzer"),
    .target(
      name: "FuzzSupport",
      dependencies: ["CFuzzer", "PenstockSystem", "PenstockLog", "PenstockCore"],
      path: "Fuzz/Support", swiftSettings: common + [swiftFlags]),
    .executableTarget(
      name: "EngineFuzz", dependencies: ["FuzzSupport", "Penstock", "PenstockTesting"],
      path: "Fuzz/Engine", swiftSettings: common + [swiftFlags], linkerSettings: [linked]),
    .executableTarget(
      name: "WireFuzz", dependencies: ["FuzzSupport", "PenstockSQS", "PenstockTesting"],
      path: "Fuzz/Wire", swiftSettings: common + [swiftFlags], linkerSettings: [linked]),
  ]
}

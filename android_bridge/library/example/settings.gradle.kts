pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}
dependencyResolutionManagement {
    repositories {
        maven { url = uri("../android/target/repository") } // what `make android` packs
        google()
        mavenCentral()
    }
}
rootProject.name = "hfnet-edge-example"
include(":app")
